"""The referee's verdict as tables, for a terminal and for the report."""

import math
from html import escape
from typing import TYPE_CHECKING

from jensen.evaluation.claims import Claim
from jensen.evaluation.measure import typeset, written
from jensen.evaluation.referee import Account, Verdict
from jensen.report import page

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("nats per example", "bits per dimension", "one example's error", "network rows", "with gradient", "seconds")
STATES = {True: "holds", False: "contradicted", None: "too few examples"}


def verdict_table(verdict: Verdict) -> "Table":
    """Every estimate with its error and what one example cost; the differences; what to know of the estimates."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"The referee: {verdict.source}, {len(verdict.index)} examples"
    shown = Table(box=box.SIMPLE, title=Text(title), title_justify="left", caption_justify="left", padding=0)
    shown.add_column("", no_wrap=True)
    for head in HEADS:
        shown.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
    for account in verdict.accounts:
        shown.add_row(account.name, *_cells(account))
    if verdict.simulated:
        shown.add_section()
        shown.add_row(Text(f"{len(verdict.simulated[0].values)} simulated:", style="bold"))
        for account in verdict.simulated:
            shown.add_row(account.name, *_cells(account))
    lines = [_sentence(claim) for claim in verdict.claims] + notes(verdict)
    lines += [f"Warning: {warning}" for warning in verdict.warnings]
    shown.caption = Text("\n".join(lines), style="not dim not italic")
    return shown


def _cells(account: Account) -> list[str]:
    error = account.monte_carlo_error
    numbers = (account.evaluations, account.gradients, account.seconds)
    return [
        written(account.nats),
        written(account.bits_per_dimension),
        f"{error:.2g}" if math.isfinite(error) else "-",
        *(f"{number:,.0f}" if number >= 100 else f"{number:.3g}" for number in numbers),
    ]


def _sentence(claim: Claim) -> str:
    if not claim.nats.count:
        return f"{claim.first} {claim.relation} {claim.second}: no example's importance weights can be trusted"
    difference = f"{claim.second} - {claim.first}: {written(claim.nats)} nats"
    of = f" on {claim.nats.count} examples" if claim.relation == "=" else ""
    return f"{difference}{of}; {claim.first} {claim.relation} {claim.second}: {STATES[claim.holds]}"


def notes(verdict: Verdict) -> list[str]:
    """How far importance weights and annealed chains can be trusted, one line each."""
    lines = []
    for account in (*verdict.accounts, *verdict.simulated):
        said = []
        if account.median_effective_sample_size is not None:
            said.append(f"effective sample size {account.median_effective_sample_size:.3g} (median)")
        if account.untrusted is not None:
            said.append(f"Pareto k above 0.7 for {100 * account.untrusted:.3g} % of the examples")
        if account.trusted is not None:
            said.append(f"trusted for {100 * account.trusted:.3g} % of the examples")
        if account.acceptance is not None:
            said.append(f"acceptance {account.acceptance:.2f}")
        if said:
            lines.append(f"{account.name}: {', '.join(said)}")
    return lines


def referee_section(verdict: Verdict) -> str:
    """The same as a section of the report."""
    accounts = (*verdict.accounts, *verdict.simulated)
    costs = page.columns(HEADS, {account.name: [_html(cell) for cell in _cells(account)] for account in accounts})
    claims = page.columns(
        ("second minus first, nats", "examples", ""),
        {
            f"{claim.first} {claim.relation.replace('<=', '≤')} {claim.second}": [
                typeset(claim.nats),
                f"{claim.nats.count:,}",
                STATES[claim.holds],
            ]
            for claim in verdict.claims
        },
    )
    caption = (
        f"Every estimate on the same {len(verdict.index)} examples, ± one standard error over them; the cost is that "
        "of one example, rows that went through the network being counted by a hook on it. An order is checked on all "
        "examples, an equality on those whose importance weights can be trusted."
    )
    warnings = "".join(f'<p class="warning">{escape(warning)}.</p>' for warning in verdict.warnings)
    said = "".join(f"<li>{escape(line)}</li>" for line in notes(verdict))
    parts = (costs, f'<p class="small">{caption}</p>', claims, warnings, f'<ul class="small">{said}</ul>')
    return page.section("The referee", *parts)


def _html(cell: str) -> str:
    return escape(cell.replace("-", "−") if cell != "-" else "")
