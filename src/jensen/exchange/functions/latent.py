"""The functions of a VAE with a diffusion prior; x in the names of the prior's functions is u, the standardised z."""

from torch import Tensor, nn

from jensen.exchange.functions.data import Data
from jensen.exchange.functions.diffusion import Ports, Term, chain_facts, sampler_functions, sampling_facts
from jensen.exchange.functions.function import BATCH, Function, Functions, Port, normal
from jensen.exchange.functions.vae import Decoder, Encoder, encoder_and_decoder, latent_port
from jensen.latent import DiffusionPrior
from jensen.vae import VAE


class LatentBound(nn.Module):
    """Raw examples, the noise of z, t (batch), noise of u, labels -> the term of step t, and the rest of the bound."""

    def __init__(self, data: Data, model: VAE, prior: DiffusionPrior) -> None:
        super().__init__()
        self.data, self.encoder, self.decoder = data, Encoder(model), Decoder(model)
        self.moments, self.term = prior.moments, Term(prior.model)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        raw, x, (noise_z, *others) = self.data.split(inputs)
        q = self.encoder(x)
        z = q.mean + q.scale * noise_z
        term, last = self.term(self.moments(z), *others)
        rest = self.decoder(z).log_prob(x) - q.log_prob(z) + self.moments.log_volume - last
        return term, self.data.raw_nats(rest, raw)


def latent_functions(data: Data, model: VAE, prior: DiffusionPrior) -> Functions:
    """`encoder`, `decoder`, and of the prior `denoiser`, `sampler_step` and `bound`."""
    ports, moments = Ports(prior.model, "u"), prior.moments
    steps, notes = sampler_functions(ports)
    noise_z = latent_port(model, "noise_z", "standard normal numbers; z = mean + scale noise_z")
    term = Port(name="term", dtype="float64", axes=(BATCH,), meaning="the term of step t in nats")
    rest = Port(name="rest", dtype="float64", axes=(BATCH,), meaning="all other terms in nats of the raw data")

    def probe(count: int) -> tuple[Tensor, ...]:
        own = normal((count, model.latent_dims)), ports.steps(count), normal((count, *prior.model.shape), 1)
        return *data.probe(count), *own, *ports.labels(count)

    bound = Function(
        "bound",
        f"A term of the bound: log p(x) >= E[rest - term(1) - ... - term({prior.model.bound().steps})] over the noise.",
        LatentBound(data, model, prior),
        (*data.ports, noise_z, ports.t, ports.noise, *ports.label),
        (term, rest),
        probe,
    )
    facts = {
        "bound": chain_facts(prior.model),
        "sampling": sampling_facts(prior.model),
        "latent": {
            "meaning": "z = shift + scale u by channel; u has this shape, and z is flat",
            "shape": list(prior.model.shape),
            "shift": moments.shift.flatten().tolist(),
            "scale": moments.scale.flatten().tolist(),
        },
    }
    note = "log_prob (L_K) is left out: the prior is a diffusion model, which gives a bound on log p(z); see bound"
    return Functions((*encoder_and_decoder(data, model), *steps, bound), facts, (*notes, note))
