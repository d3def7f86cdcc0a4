"""Where the bits go: what each noise level costs, and how much is known once it is paid."""

import math

from jensen.evaluation.measure import typeset
from jensen.report import charts, page
from jensen.report.album import Album
from jensen.report.results import Results


def bits_section(results: Results, album: Album) -> str:
    """The bound by noise level, in two charts; nothing for a model that has none."""
    return page.section("Where the bits go", *bits_figures(results, album)) if results.evaluation.profile else ""


def bits_figures(results: Results, album: Album) -> list[str]:
    """The costs of the noise levels, and the rate-distortion curve."""
    evaluation, profile = results.evaluation, results.evaluation.profile
    assert profile is not None
    nats_per_bit = results.spec.preparation.dimensions * math.log(2)
    costs = (
        f"The terms of (5.11), means over {results.count:,} examples, the band and the whiskers ± one standard error. "
        "Left: the denoising terms L<sub>t−1</sub> per unit of log-SNR, so that the area is their sum; it is the right "
        "panel's middle bar. The ends of the chain, L<sub>T</sub> and L<sub>0</sub>, are the outer ones. The scales on "
        "the right: nats of the raw data. "
        f"Together: {typeset(evaluation.elbo.bits_per_dimension)} bits per dimension."
    )
    rates = (
        "Rate and distortion (Ho et al. 2020, figure 5): the bits spent when x<sub>t</sub> is known, from noise on the "
        "right to data on the left, against the root mean squared error of what the model then takes x<sub>0</sub> to "
        "be. Large structure is cheap, the last small error dear."
    )
    return [
        album.chart("bits", charts.noise_costs(profile, nats_per_bit), "Bits by noise level", costs),
        album.chart("rate-distortion", charts.rate_distortion(profile, nats_per_bit), "Bits against error", rates),
    ]
