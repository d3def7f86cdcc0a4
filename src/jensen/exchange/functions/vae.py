"""The functions of a VAE: q(z|x), E[x|z], and log p(x) by L_K (4.9) from given noise."""

import torch
from torch import Tensor, nn

from jensen.errors import InputError
from jensen.exchange.functions.data import Data, ToRaw
from jensen.exchange.functions.function import BATCH, DRAWS, Function, Functions, Port, normal
from jensen.gaussian import Gaussian
from jensen.likelihood import Observation
from jensen.vae import VAE, AmortisedPosterior, StandardNormal

LOWEST = -1e30  # in place of minus infinity, which cannot be subtracted from itself


class Encoder(nn.Module):
    """q(z|x) of whole examples: x -> its mean and scale, each (batch, latent_dims)."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        posterior = model.posterior
        if posterior.amortised and not isinstance(posterior, AmortisedPosterior):
            raise InputError(
                f"{type(posterior).__name__}: an exported file has a single normal q(z|x) with independent dimensions, "
                "so it holds no network ladder and no posterior full-covariance; train with others"
            )
        if not isinstance(posterior, AmortisedPosterior):
            raise InputError(
                "posterior per-datapoint: q(z|x) of a new example is optimised, which no exported file does; train "
                "with --posterior amortised"
            )
        self.posterior = AmortisedPosterior(posterior.encoder, posterior.latent_dims, posterior.fill)

    def forward(self, x: Tensor) -> Gaussian:
        return self.posterior.whole(x)


class Decoder(nn.Module):
    """p(x|z) for z (*batch, latent_dims)."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.decoder, self.likelihood = model.decoder, model.likelihood

    def forward(self, z: Tensor) -> Observation:
        output = self.decoder(z.flatten(0, -2))
        return self.likelihood(output.reshape(*z.shape[:-1], *output.shape[1:]))


class Encode(nn.Module):
    """Raw examples -> mean and scale of q(z|x)."""

    def __init__(self, data: Data, encoder: Encoder) -> None:
        super().__init__()
        self.data, self.encoder = data, encoder

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        q = self.encoder(self.data(*inputs))
        return q.mean, q.scale


class Decode(nn.Module):
    """z -> E[x|z] in the units of the raw data."""

    def __init__(self, to_raw: ToRaw, decoder: Decoder) -> None:
        super().__init__()
        self.to_raw, self.decoder = to_raw, decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.to_raw(self.decoder(z).mean)


class LogProb(nn.Module):
    """Raw examples and noise (k, batch, latent_dims) -> L_K, the ELBO, and the log-weights (4.9), by z = mean + scale
    noise."""

    def __init__(self, data: Data, model: VAE) -> None:
        super().__init__()
        self.data, self.encoder, self.decoder, self.prior = data, Encoder(model), Decoder(model), model.prior
        if not isinstance(model.prior, StandardNormal):
            name = type(model.prior).__name__
            raise InputError(f"prior {name}: an exported VAE has the prior N(0, I); train with --prior standard")

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        raw, x, (noise,) = self.data.split(inputs)
        q = self.encoder(x)
        z = q.mean + q.scale * noise
        reconstruction = self.decoder(z).log_prob(x)
        log_weights = (reconstruction + self.prior.log_prob(z) - q.log_prob(z)).double()
        largest = log_weights.amax(0).clamp(min=LOWEST)
        importance = largest + (log_weights - largest).exp().mean(0).log()  # (4.9)
        elbo = reconstruction.mean(0) - q.kl_to_standard()  # (4.6)
        volume = self.data.raw_nats(torch.zeros_like(importance), raw)
        return importance + volume, elbo.double() + volume, log_weights + volume


def latent_port(model: VAE, name: str, meaning: str, *before: str) -> Port:
    """An input or output of the size of z."""
    return Port(name=name, dtype="float32", axes=(*before, BATCH, model.latent_dims), meaning=meaning)


def encoder_and_decoder(data: Data, model: VAE) -> tuple[Function, Function]:
    """The functions `encoder` and `decoder`."""
    outputs = latent_port(model, "mean", "mean of q(z|x)"), latent_port(model, "scale", "standard deviation of q(z|x)")
    encode = Encode(data, Encoder(model))
    encoder = Function("encoder", "q(z|x) of each example.", encode, data.ports, outputs, data.probe)

    def probe(count: int) -> tuple[Tensor, ...]:
        return (normal((count, model.latent_dims)),)

    decode, z = Decode(ToRaw(data), Decoder(model)), latent_port(model, "z", "latent variables")
    with torch.no_grad():
        dtype = str(decode(*probe(2)).dtype).removeprefix("torch.")
    mean = Port(name="mean", dtype=dtype, axes=data.ports[0].axes, meaning="E[x|z] in the units of the raw data")
    return encoder, Function("decoder", "The mean of x given z.", decode, (z,), (mean,), probe)


def vae_functions(data: Data, model: VAE) -> Functions:
    """`encoder`, `decoder` and `log_prob` of a VAE with prior N(0, I); raises `InputError` for another prior."""
    noise = latent_port(model, "noise", "standard normal numbers; k is the K of L_K", DRAWS)
    nats = {"dtype": "float64", "axes": (BATCH,)}
    outputs = (
        Port(name="log_prob", meaning="L_K (4.9), log p(x) from below, in nats of the raw data", **nats),
        Port(name="elbo", meaning="ELBO (4.6) by k draws in nats of the raw data, as jensen score", **nats),
        Port(
            name="log_weights",
            dtype="float64",
            axes=(DRAWS, BATCH),
            meaning="log p(x, z) - log q(z|x) of each draw; their log-mean-exp is log_prob",
        ),
    )

    def probe(count: int) -> tuple[Tensor, ...]:
        return *data.probe(count), normal((3, count, model.latent_dims))

    meaning = "log p(x) by importance sampling with k draws from q(z|x), z = mean + scale noise."
    module = LogProb(data, model)
    log_prob = Function("log_prob", meaning, module, (*data.ports, noise), outputs, probe)
    left_out = (
        f"the target ({model.target.__class__.__name__}) is left out: log_prob is log p(x)" if model.target else ""
    )
    return Functions((*encoder_and_decoder(data, model), log_prob), {}, (left_out,) if left_out else ())
