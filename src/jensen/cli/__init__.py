"""The command line: parse, call, print. Parsing and help import no torch."""

from jensen.cli.main import main

__all__ = ["main"]
