"""The referee's verdict as tables, for a terminal and for the report."""

import math
from typing import TYPE_CHECKING

from jensen.data.examples import counted
from jensen.evaluation.claims import Claim
from jensen.evaluation.measure import typeset, written
from jensen.evaluation.referee import Account, Verdict
from jensen.report.render import Section

if TYPE_CHECKING:
    from rich.table import Table

HEADS = ("nats per example", "bits per dimension", "one example's error", "network rows", "with gradient", "seconds")


def verdict_table(verdict: Verdict) -> "Table":
    """All estimates with errors and costs per example, the differences, and notes on reliability."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"The referee: {verdict.source}, {counted(len(verdict.index))}"
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
    of = f" on {counted(claim.nats.count)}" if claim.relation == "=" else ""
    return f"{difference}{of}; {claim.first} {claim.relation} {claim.second}: {_state(claim)}"


def _state(claim: Claim) -> str:
    if claim.holds is not None:
        return "holds" if claim.holds else "contradicted"
    if claim.trusted is None:
        return "too few examples"
    return f"undecided, trusted for {100 * claim.trusted:.3g} % of the examples only"


def notes(verdict: Verdict) -> list[str]:
    """Notes on the reliability of importance weights and annealed chains, one line each."""
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


def referee_section(verdict: Verdict) -> Section:
    """The referee's verdict as a section of a report."""
    accounts = (*verdict.accounts, *verdict.simulated)
    return Section(
        "The referee",
        "referee",
        {
            "heads": HEADS,
            "costs": {account.name: ["" if cell == "-" else cell for cell in _cells(account)] for account in accounts},
            "examples": counted(len(verdict.index)),
            "simulated": len(verdict.simulated[0].values) if verdict.simulated else 0,
            "claims": {_order(claim): _claim_cells(claim) for claim in verdict.claims},
            "warnings": [(warning, "") for warning in verdict.warnings],
            "notes": notes(verdict),
        },
    )


def _order(claim: Claim) -> str:
    return f"{claim.first} {claim.relation.replace('<=', '≤')} {claim.second}"


def _claim_cells(claim: Claim) -> list[str]:
    return [typeset(claim.nats), f"{claim.nats.count:,}", _state(claim)]
