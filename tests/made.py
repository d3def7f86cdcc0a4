"""The provenance of records that tests make up."""

from jensen.provenance import Provenance

PROVENANCE = Provenance(
    step=7,
    weights="ab" * 32,
    jensen="0.0",
    torch="2.0",
    python="3.0",
    device="cpu",
    threads=1,
    processes=1,
    command="pytest",
    date="2026-01-01T00:00:00+00:00",
    seconds=1.5,
)
