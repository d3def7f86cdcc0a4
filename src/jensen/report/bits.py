"""Where the bits go: the cost of each noise level, and the error of x_0 that remains after this level."""

import math

from jensen.data.examples import counted
from jensen.evaluation.measure import typeset
from jensen.report import charts
from jensen.report.album import Album
from jensen.report.render import Section
from jensen.report.results import Results


def bits_section(results: Results, album: Album, title: str = "Where the bits go") -> Section | None:
    """The costs of the noise levels and the rate-distortion curve; None for a model without noise levels."""
    evaluation, profile = results.evaluation, results.evaluation.profile
    if profile is None:
        return None
    nats_per_bit = results.spec.preparation.dimensions * math.log(2)
    costs, rates = charts.noise_costs(profile, nats_per_bit), charts.rate_distortion(profile, nats_per_bit)
    return Section(
        title,
        "bits",
        {
            "count": counted(results.count),
            "total": typeset(evaluation.elbo.bits_per_dimension),
            "costs": album.chart("bits", costs, "Bits by noise level"),
            "rates": album.chart("rate-distortion", rates, "Bits against error"),
        },
    )
