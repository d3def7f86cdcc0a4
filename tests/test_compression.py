"""Compression: what is pushed comes back, costs what the model says, and no file lies about it."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made import PROVENANCE
from scipy import stats

import jensen
from jensen.cli import main
from jensen.compression import (
    ChainCodec,
    Stack,
    VAECodec,
    data_digest,
    decode,
    encode,
    sizes_of_others,
    unpack,
)
from jensen.compression.archive import Header, Machine, pack
from jensen.compression.codelength import Codelength
from jensen.compression.levels import pop_observation, push_observation
from jensen.diffusion.denoiser import AbstractDenoiser, Denoised
from jensen.diffusion.model import DiffusionModel, Scoring
from jensen.diffusion.reverse import BetaVariance, PosteriorVariance
from jensen.diffusion.schedule import LinearLogSnr, alpha_bar, one_minus_alpha_bar, signal_scale
from jensen.diffusion.weighting import Simple, WeightedObjective
from jensen.errors import InputError
from jensen.likelihood import (
    Bernoulli,
    BernoulliLikelihood,
    Categorical,
    CategoricalLikelihood,
    DiscretisedGaussian,
    DiscretisedLikelihood,
    DiscretisedLogistic,
    GaussianLikelihood,
    LearnedScale,
    LogisticMixtureLikelihood,
)
from jensen.nets import MLP
from jensen.nets.ladder import DenseBottomUp, DenseTopDown
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings
from jensen.recipe.families import family_of
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.report.compression import codelength_rows, compression_section
from jensen.report.further import further_records
from jensen.vae import (
    VAE,
    AmortisedPosterior,
    CouplingPrior,
    GroupedPrior,
    HierarchicalPosterior,
    MixturePrior,
    VampPrior,
)

SHAPE = (1, 4, 4)
LEVELS = 16


def a_stack(words: int = 5000) -> Stack:
    return Stack(np.random.default_rng(0).integers(1, 2**32, words, dtype=np.uint32))


def bits_of(push: Callable[[Stack], None]) -> float:
    """What pushing adds to a stack, to within a word's 32 bits."""
    stack = a_stack(10)
    before = stack.height
    push(stack)
    return 32.0 * (stack.height - before)


# ---------------------------------------------------------------------------------------------- the stack


@given(
    st.lists(st.integers(-(2**35), 2**35), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e5),
)
@settings(deadline=None, max_examples=50)
def test_any_integers_come_back_however_far_from_the_mean(values: list[int], mean: float, scale: float) -> None:
    stack, pushed = a_stack(), np.array(values)
    before = stack.words()
    parameters = np.full(len(pushed), mean), np.full(len(pushed), scale)
    stack.push_near(pushed, *parameters)
    np.testing.assert_array_equal(stack.pop_near(*parameters), pushed)
    np.testing.assert_array_equal(stack.words(), before)


def test_near_integers_cost_their_information() -> None:
    source = np.random.default_rng(1)
    mean, scale = source.uniform(-1e5, 1e5, 20_000), np.full(20_000, 8.0)
    values = np.rint(source.normal(mean, scale)).astype(np.int64)
    masses = stats.norm.cdf(values + 0.5, mean, scale) - stats.norm.cdf(values - 0.5, mean, scale)
    bits = bits_of(lambda stack: stack.push_near(values, mean, scale))
    assert bits == pytest.approx(-np.log2(masses).sum(), rel=1e-3)


def test_draws_follow_the_law_and_can_be_given_back() -> None:
    stack = a_stack(50_000)
    before, parameters = stack.words(), (np.full(20_000, 0.3), np.full(20_000, 20.0))
    drawn = stack.draw_near(*parameters)
    smooth = drawn + np.random.default_rng(2).uniform(-0.5, 0.5, len(drawn))  # a bin is narrow: 1e-4 off a normal law
    assert stats.kstest(smooth, "norm", args=(0.3, 20.0)).pvalue > 1e-5  # false-alarm rate 1e-5
    assert stack.lowest < len(before)
    stack.give_back(drawn, *parameters)
    np.testing.assert_array_equal(stack.words(), before)


def test_narrow_numbers_beside_wide_ones_are_drawn_from_their_own_tails() -> None:
    stack = a_stack(80_000)
    mean, scale = np.zeros(40_000), np.tile([4.0, 1000.0], 20_000)
    before = stack.words()
    drawn = stack.draw_near(mean, scale)
    assert np.abs(drawn / scale).max() < 17  # always: a window is at most 16 of its standard deviations wide
    stack.give_back(drawn, mean, scale)
    np.testing.assert_array_equal(stack.words(), before)


def test_scrambling_reaches_words_that_were_set_aside() -> None:
    stack = a_stack(400_000)
    before = stack.words()
    stack.scramble(1)
    stack.scramble(300_000)
    same = Stack(stack.words(), scrambled=2)
    same.unscramble(300_000)
    same.unscramble(1)
    np.testing.assert_array_equal(same.words(), before)


def test_predictions_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="not finite"):
        a_stack().push_near(np.zeros(2, np.int64), np.array([0.0, np.nan]), np.ones(2))


OBSERVATIONS = {
    "bernoulli": lambda loc, raw: Bernoulli(2 * loc, 3),
    "categorical": lambda loc, raw: Categorical(torch.stack([loc * k / 8 for k in range(LEVELS)], -4), 3),
    "gaussian": lambda loc, raw: DiscretisedGaussian(loc, 0.02 + raw.exp() / 20, LEVELS, 3),
    "logistic": lambda loc, raw: DiscretisedLogistic(loc, 0.02 + raw.exp() / 20, LEVELS, 3),
    "one scale": lambda loc, raw: DiscretisedLogistic(loc, torch.tensor(0.1), LEVELS, 3),
    "logistic mixture": lambda loc, raw: LogisticMixtureLikelihood(SHAPE, 2, LEVELS, 0.02)(
        torch.cat([torch.stack([loc, raw, raw, loc], 1), raw.unsqueeze(1) - 1, loc.unsqueeze(1)], 1)
    ),
}


def test_dependent_channels_are_coded_one_after_the_other() -> None:
    shape, source = (3, 4, 2), torch.Generator().manual_seed(6)
    likelihood = LogisticMixtureLikelihood(shape, 3, LEVELS, 0.02)
    p = likelihood(torch.randn(100, likelihood.outputs, *shape, generator=source))
    x = p.quantile(torch.rand(100, *shape, generator=source))
    symbols, stack = ((x + 1) * (LEVELS - 1) / 2).round().long(), a_stack()
    expected = -p.log_prob(x).sum().item() / math.log(2)
    assert bits_of(lambda stack: push_observation(stack, p, symbols)) == pytest.approx(
        expected, abs=33 + 1e-3 * expected
    )
    push_observation(stack, p, symbols)
    assert torch.equal(pop_observation(stack, p, symbols.shape), symbols)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_a_likelihood_codes_x_in_its_own_log_mass(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jensen.compression.levels.ELEMENTS", 1000)  # several tables
    source = torch.Generator().manual_seed(3)
    p = OBSERVATIONS[name](*(torch.randn(200, *SHAPE, generator=source) for _ in range(2)))
    x = p.quantile(torch.rand(200, *SHAPE, generator=source))
    symbols = (x if name == "bernoulli" else (x + 1) * (LEVELS - 1) / 2).round().long()
    bits = bits_of(lambda stack: push_observation(stack, p, symbols))
    expected = -p.log_prob(x).sum().item() / math.log(2)
    assert bits == pytest.approx(expected, abs=33 + 1e-4 * expected)
    stack = a_stack()
    push_observation(stack, p, symbols)
    assert torch.equal(pop_observation(stack, p, symbols.shape), symbols)


# ---------------------------------------------------------------------------------------------- the codecs


LIKELIHOODS = {
    "bernoulli": BernoulliLikelihood(SHAPE),
    "categorical": CategoricalLikelihood(SHAPE, LEVELS),
    "gaussian": DiscretisedLikelihood(SHAPE, LearnedScale(0.04), LEVELS, DiscretisedGaussian),
    "logistic": DiscretisedLikelihood(SHAPE, LearnedScale(0.04), LEVELS, DiscretisedLogistic),
}


def a_vae(name: str = "logistic", seed: int = 0) -> VAE:
    torch.manual_seed(seed)
    likelihood = LIKELIHOODS[name]
    decoder = MLP((3,), (16,), (likelihood.outputs, *SHAPE), "tanh")
    return VAE(AmortisedPosterior(MLP(SHAPE, (16,), (6,), "tanh"), 3), decoder, likelihood)


class GaussianDenoiser(AbstractDenoiser):
    """The best possible denoiser of x_0 ~ N(0, deviation²)."""

    deviation = 0.4

    def forward(self, x_t: torch.Tensor, log_snr: torch.Tensor, labels: torch.Tensor | None = None) -> Denoised:
        level = log_snr.expand(len(x_t)).reshape(-1, 1, 1, 1).to(x_t)
        variance = self.deviation**2
        gain = signal_scale(level) * variance / (alpha_bar(level) * variance + one_minus_alpha_bar(level))
        return Denoised.from_x0(x_t, log_snr, gain * x_t)


def a_diffusion_model(variance=None, levels: int | None = LEVELS) -> DiffusionModel:
    scoring = Scoring(steps=100, variance=variance or PosteriorVariance(), levels=levels)
    return DiffusionModel(SHAPE, GaussianDenoiser(), LinearLogSnr(8.0, -8.0), WeightedObjective(Simple()), scoring)


def gaussian_levels(count: int) -> torch.Tensor:
    law = DiscretisedGaussian(torch.zeros(count, *SHAPE), torch.tensor(GaussianDenoiser.deviation), LEVELS, 3)
    x = law.quantile(torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(4)))
    return ((x + 1) * (LEVELS - 1) / 2).round().long()


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_vae_codes_in_its_bound(name: str) -> None:
    codec = VAECodec(a_vae(name))
    symbols = gaussian_levels(300).clamp(max=codec.levels - 1)
    encoded = encode(codec, symbols, 64)
    assert torch.equal(decode(codec, encoded.words, encoded.batches), symbols)
    bits = 32 * len(encoded.words) - encoded.initial_bits
    # Independent draws: the sum's standard error is that of log p(x, z) - log q(z) over z, √300 times that of one.
    elbo = a_vae(name).elbo(codec.prepared(symbols), draws=50)
    spread = elbo.standard_error.square().sum().sqrt().item() * math.sqrt(50)
    tolerance = (6 * spread + 50) / math.log(2)  # false-alarm rate below 1e-8; 50 nats for words and bins
    assert abs(encoded.bound.sum().item() - elbo.value.sum().item()) < 6 * spread  # its draws are those of q
    assert bits == pytest.approx(-elbo.value.sum().item() / math.log(2), abs=tolerance)
    assert tolerance < 0.1 * bits


def a_hierarchy(seed: int = 0, top: str = "standard") -> VAE:
    """Three groups whose factors depend on each other, and q near its prior."""
    torch.manual_seed(seed)
    sizes, likelihood = (2, 2, 3), LIKELIHOODS["logistic"]
    decoder, encoder = DenseTopDown(sizes, 16, 1, (likelihood.outputs, *SHAPE)), DenseBottomUp(SHAPE, sizes, 16, 1)
    with torch.no_grad():
        for parameter in [*encoder.parameters(), *decoder.parameters()]:
            parameter.add_(0.05 * torch.randn_like(parameter))
    posterior = HierarchicalPosterior(encoder, decoder)
    tops = {
        "standard": lambda: None,
        "mixture": lambda: MixturePrior(2, 5),
        "vamp": lambda: VampPrior(2, posterior.top, SHAPE, 6, (-1.0, 1.0)),
    }
    return VAE(posterior, decoder, likelihood, prior=GroupedPrior(sizes, tops[top]()))


OTHER_VAES = {
    "mixture": lambda: a_vae().with_prior(MixturePrior(3, 5)),
    "vamp": lambda: (vae := a_vae()).with_prior(VampPrior(3, vae.posterior.whole, SHAPE, 6, (-1.0, 1.0))),
    "hierarchy": a_hierarchy,
    "hierarchy with a mixture": lambda: a_hierarchy(top="mixture"),
    "hierarchy with a vamp prior": lambda: a_hierarchy(top="vamp"),
}


@pytest.mark.parametrize("name", OTHER_VAES)
def test_hierarchies_and_mixtures_code_within_half_a_percent_of_the_bound(name: str) -> None:
    model = OTHER_VAES[name]()
    codec, symbols = VAECodec(model), gaussian_levels(1800)
    encoded = encode(codec, symbols, 128)
    assert torch.equal(decode(codec, encoded.words, encoded.batches), symbols)
    bits = 32 * len(encoded.words) - encoded.initial_bits
    elbo = model.elbo(codec.prepared(symbols), draws=30)
    spread = elbo.standard_error.square().sum().sqrt().item() * math.sqrt(30)
    assert bits == pytest.approx(-encoded.bound.sum().item() / math.log(2), rel=0.005)
    assert abs(encoded.bound.sum().item() - elbo.value.sum().item()) < 6 * spread


def test_a_flow_prior_is_refused_by_name() -> None:
    flow = CouplingPrior(3, [MLP((3,), (4,), (6,)) for _ in range(2)])
    with pytest.raises(InputError, match="has a CouplingPrior; train one with --prior standard, mixture or vamp"):
        VAECodec(a_vae().with_prior(flow))


@pytest.mark.parametrize("variance", [PosteriorVariance(), BetaVariance()], ids=["posterior", "beta"])
def test_a_chain_codes_in_its_bound_and_borrows_two_latents(variance) -> None:
    codec = ChainCodec(a_diffusion_model(variance), 30)
    symbols = gaussian_levels(400)
    encoded = encode(codec, symbols, 32)
    assert torch.equal(decode(codec, encoded.words, encoded.batches), symbols)
    bits = 32 * len(encoded.words) - encoded.initial_bits
    bound = codec._bound
    terms = [bound.term(bound.predict(x, t, torch.randn(x.shape)), x, t) for x, t in _every_step(codec, symbols)]
    expected = sum(term.sum().item() for term in terms) + bound.prior(codec.prepared(symbols)).sum().item()
    # The draws' log q / p of a step has a variance of about twice its KL (d² for a shift of d = √(2 KL) deviations):
    # over the whole chain √(2 · 400 · 30 nats) = 155 nats; 6 of them are a false alarm of 2e-9
    assert bits == pytest.approx(expected / math.log(2), abs=6 * 155 / math.log(2))
    assert encoded.excess.sum().item() == pytest.approx(bits + encoded.bound.sum().item() / math.log(2))
    assert abs(encoded.excess.sum().item()) < 6 * encoded.excess_error  # false-alarm rate below 1e-4: Student's t
    assert encoded.excess_error < 0.02 * bits
    assert encoded.initial_bits < 2.1 * 16 * (math.log2(8 * math.sqrt(2 * math.pi * math.e)) + 0.5) + 64


def _every_step(codec: ChainCodec, symbols: torch.Tensor):
    for t in range(1, codec.steps + 1):
        yield codec.prepared(symbols), torch.full((len(symbols),), t)


def test_a_better_chain_is_a_shorter_code() -> None:
    """What a chain of 60 steps saves of one of 6 is what its bound says, far beyond any noise."""
    symbols = gaussian_levels(200)
    short, long = (encode(ChainCodec(a_diffusion_model(), steps), symbols, 64) for steps in (6, 60))
    assert 32 * len(long.words) - long.initial_bits < 32 * len(short.words) - short.initial_bits


@pytest.mark.parametrize("codec", [VAECodec(a_vae()), ChainCodec(a_diffusion_model(), 5)], ids=["vae", "chain"])
def test_batches_grow_with_what_is_earned(codec) -> None:
    """Hundreds of examples borrow no more than ten do: a batch goes only as far down as one example did."""
    few, many = (encode(codec, gaussian_levels(count), 32) for count in (10, 500))
    assert many.initial_bits < 1.5 * few.initial_bits + 64
    assert many.batches[0] == 1
    assert max(many.batches) == 32
    assert sum(many.batches) == 500


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_examples(count: int) -> None:
    codec = ChainCodec(a_diffusion_model(), 4)
    encoded = encode(codec, gaussian_levels(count), 8)
    assert torch.equal(decode(codec, encoded.words, encoded.batches), gaussian_levels(count))


def test_models_of_densities_are_refused() -> None:
    model = a_vae()
    model.likelihood = GaussianLikelihood(SHAPE, LearnedScale(0.1))
    for refused in (model, a_diffusion_model(levels=None)):
        with pytest.raises(InputError, match="density"):
            VAECodec(refused) if refused is model else ChainCodec(refused, 100)
    with pytest.raises(InputError, match="leave it out"):
        family_of(VAERecipe()).codec(a_vae(), 5)
    with pytest.raises(InputError, match="1 step"):
        ChainCodec(a_diffusion_model(), 1)


# ---------------------------------------------------------------------------------------------- the file


def a_file() -> bytes:
    machine = Machine.here(torch.device("cpu"))
    header = Header(
        shape=SHAPE, dtype="uint8", count=3, batches=((1, 3),), steps=None, model="m", data="d", machine=machine
    )
    return pack(header, np.arange(1, 40, dtype=np.uint32))


def test_a_file_comes_back() -> None:
    header, words = unpack(a_file(), "file")
    assert header.sizes == (1, 1, 1)
    assert header.machine == Machine.here(torch.device("cpu"))
    np.testing.assert_array_equal(words, np.arange(1, 40))


def test_every_flipped_bit_and_every_truncation_is_noticed() -> None:
    content = a_file()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        with pytest.raises(InputError):
            unpack(bytes(flipped), "file")
        with pytest.raises(InputError):
            unpack(content[:position], "file")
    with pytest.raises(InputError):
        unpack(content + b"\0", "file")


def test_a_header_whose_count_is_not_that_of_its_batches_is_refused() -> None:
    header, words = unpack(a_file(), "file")
    with pytest.raises(InputError, match="header of another format"):
        unpack(pack(header.model_copy(update={"count": 4}), words), "file")


def test_the_digest_of_data_knows_dtype_and_shape() -> None:
    x = np.zeros((2, 3, 4), np.uint8)
    others = [x.reshape(2, 4, 3), x.astype(np.uint16), np.zeros((4, 3, 2), np.uint8), x + np.uint8(1)]
    assert len({data_digest(array) for array in [x, *others]}) == 5


def test_other_formats_suit_the_data() -> None:
    source = np.random.default_rng(5)
    grey = source.integers(0, 256, (6, 1, 9, 7), dtype=np.uint8)
    found = sizes_of_others(grey, 256)
    assert min(found.values()) > 0.9 * grey.size  # noise: nobody compresses it, nobody loses it
    binary = source.integers(0, 2, (6, 1, 16, 16), dtype=np.uint8)
    assert sizes_of_others(binary, 2)["PNG, in one picture"] < 400  # 192 bytes of bits
    assert set(sizes_of_others(source.integers(0, 9, (6, 5), dtype=np.uint16), 9)) == {"gzip", "xz"}


# ---------------------------------------------------------------------------------------------- the commands


BRIEF = {"steps": 30, "batch_size": 32, "validate_every": 30, "ema_decay": None}
TINY = DiffusionSettings(network="mlp", width=16, depth=1, bound_terms=5, octaves=0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    recipes = {
        "vae": VAERecipe(model=VAESettings(latent_dims=4, hidden=(16,)), training=BRIEF),
        "other": VAERecipe(model=VAESettings(latent_dims=4, hidden=(16,)), training=BRIEF, seed=1),
        "dynamic": VAERecipe(model=VAESettings(latent_dims=4, hidden=(16,), likelihood="bernoulli"), training=BRIEF),
        "diffusion": DiffusionRecipe(model=TINY, training=BRIEF),
    }
    for name, recipe in recipes.items():
        jensen.train(recipe, folder / name)
    return {name: folder / name for name in recipes}


def _refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(words) == 2
    told = capsys.readouterr().err
    lines = [line for line in told.splitlines() if line.startswith("jensen: ")]
    assert len(lines) == 1
    return lines[0]


def shown_of(run: Path, weights: str) -> str:
    """The section of the report about the compression by these weights."""
    found = further_records(run, weights).codelength
    assert found is not None
    return compression_section(found).render()


@pytest.mark.parametrize(("name", "more"), [("vae", []), ("diffusion", ["--steps", "4"])])
def test_another_process_restores_every_bit(
    runs: dict[str, Path], tmp_path: Path, name: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "digits.jensen", tmp_path / "back.npz"
    assert main(["compress", str(runs[name]), "--out", str(file), "--examples", "40", *more]) == 0
    told = capsys.readouterr().out
    for row in ("the file", "bound", "initial bits", "PNG, a file each", "WebP, in one picture", "gzip", "xz"):
        assert row in told
    sizes = json.loads((tmp_path / "digits.jensen.json").read_text())
    assert sizes["file_bytes"] == file.stat().st_size
    assert sizes["examples"] == 40
    section = shown_of(runs[name], sizes["provenance"]["weights"])
    assert f"{sizes['file_bytes']:,}" in section
    assert "WebP, in one picture" in section
    assert further_records(runs[name], "ab" * 32).codelength is None  # it was trained on since
    environment = os.environ | {"OMP_NUM_THREADS": "2"}  # the file knows better
    command = [sys.executable, "-m", "jensen", "decompress", str(file), "--run", str(runs[name]), "--out", str(out)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    expected = jensen.load(runs[name]).examples().x[:40].numpy()
    with np.load(out, allow_pickle=False) as restored:
        assert restored["x"].dtype == expected.dtype
        np.testing.assert_array_equal(restored["x"], expected)


def test_one_example_has_a_section_too(runs: dict[str, Path], tmp_path: Path) -> None:
    """There is no standard error of one example, and a report all the same."""
    assert (
        main(["compress", str(runs["other"]), "--out", str(tmp_path / "file"), "--examples", "1", "--unchecked"]) == 0
    )
    weights = json.loads((tmp_path / "file.json").read_text())["provenance"]["weights"]
    assert "1 example" in shown_of(runs["other"], weights)


def test_nothing_is_less_than_zero_by_less_than_is_shown() -> None:
    shown = {"source": "made", "provenance": PROVENANCE, "examples": 10, "dimensions": 4, "steps": None, "batches": 1}
    sizes = {
        "file_bytes": 8000,
        "stack_bits": 63000,
        "initial_bits": 0,
        "bound_bits": 63000.001,
        "overhead_error": 0.01,
    }
    made_of, _ = codelength_rows(Codelength(**shown, **sizes, seconds=1, seconds_back=None, others={}))
    assert made_of["  overhead, 0.00 ± 1.00 %"] == ["0", "0.0", "0.0000", "0.00"]


def test_binary_data_go_through_a_bernoulli_likelihood(runs: dict[str, Path], tmp_path: Path) -> None:
    """Also where the run binarises anew at every visit: of black and white there is nothing to draw."""
    x = (np.random.default_rng(6).random((30, 1, 8, 8)) < 0.3).astype(np.uint8) * 16
    np.save(tmp_path / "binary.npy", x)
    file, out = tmp_path / "file", tmp_path / "back.npy"
    words = ["compress", str(runs["dynamic"]), "--data", str(tmp_path / "binary.npy"), "--out", str(file)]
    assert main(words) == 0
    assert not (runs["dynamic"] / "compression.json").exists()  # which is about its test examples
    assert main(["decompress", str(file), "--run", str(runs["dynamic"]), "--out", str(out)]) == 0
    np.testing.assert_array_equal(np.load(out), x)


def test_what_cannot_be_restored_is_refused(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    grey = ["compress", str(runs["dynamic"]), "--out", str(file)]
    assert "binarises its data (dynamic), anew at every visit" in _refused(grey, capsys)
    assert "--steps" in _refused(["compress", str(runs["vae"]), "--steps", "4", "--out", str(file)], capsys)
    assert "folder" in _refused(["compress", str(runs["vae"]), "--out", str(tmp_path)], capsys)
    assert not any(tmp_path.iterdir())


def test_damaged_and_foreign_files_write_nothing(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "file", tmp_path / "back.npz"
    assert main(["compress", str(runs["vae"]), "--out", str(file), "--examples", "5", "--unchecked"]) == 0
    content = file.read_bytes()
    words = ["decompress", str(file), "--out", str(out), "--run"]
    assert "made by another model" in _refused([*words, str(runs["other"])], capsys)
    for damaged in (content[:-1], content[:30], content[:100] + b"x" + content[101:]):
        file.write_bytes(damaged)
        assert "truncated or altered" in _refused([*words, str(runs["vae"])], capsys)
    for foreign in (b"", b"PK\3\4 something else"):
        file.write_bytes(foreign)
        assert "not a file made by jensen compress" in _refused([*words, str(runs["vae"])], capsys)
    file.unlink()
    assert "cannot be read" in _refused([*words, str(runs["vae"])], capsys)
    assert not out.exists()


def test_a_network_that_computes_otherwise_is_never_silent(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sound file whose data do not come back, as on another machine: the words of other data under this header."""
    assert main(["compress", str(runs["vae"]), "--out", str(tmp_path / "file"), "--examples", "5", "--unchecked"]) == 0
    header, words = unpack((tmp_path / "file").read_bytes(), "file")
    words[len(words) // 2] ^= 1
    (tmp_path / "file").write_bytes(pack(header, words))
    told = ["decompress", str(tmp_path / "file"), "--run", str(runs["vae"]), "--out", str(tmp_path / "back.npz")]
    assert "cannot be restored here" in _refused(told, capsys)
    assert not (tmp_path / "back.npz").exists()


def test_without_the_coder_one_line_says_what_to_install(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    told = _refused(["compress", str(runs["vae"]), "--out", str(tmp_path / "file")], capsys)
    assert "pip install 'jensen[compression]'" in told


@pytest.mark.parametrize("scale", [1.0, 5.0, 8.0, 15.9, 16.0])
def test_draws_end_at_six_standard_deviations(scale: float) -> None:
    """The least masses of a window's symbols put a few draws of a million anywhere in it: it must be no wider."""
    words = np.random.default_rng(3).integers(1, 1 << 32, size=1 << 20, dtype=np.uint32)
    mean = np.random.default_rng(4).normal(0, 100, 1_000_000)
    found = (Stack(words).draw_near(mean, np.full_like(mean, scale)) - mean) / scale
    assert np.abs(found).max() < 6 + 3 / scale
    # The variance of a million draws, and that of rounding to integers: five standard errors, false alarm 6e-7
    assert abs(found.var() - 1 - 1 / (12 * scale**2)) < 5 * math.sqrt(2 / 1_000_000) + 36 * 15 * 2**-24 * scale
