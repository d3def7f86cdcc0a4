"""How well the errors that jensen prints cover: the table of docs/errors.md, one line per case of tests/error_bars.py.

Words after the command choose the cases whose number holds one of them: `python benchmarks/error_bars.py L_K AIS`.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from error_bars import CASES
from six_levels import SixLevels

import jensen.diffusion.bound


def main(words: list[str]) -> None:
    """Measure and print."""
    print("| number | model | repeats | spread / error | coverage of 95 % | doubted | seconds |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        if words and not any(word in case.number for word in words):
            continue
        began = time.perf_counter()
        found = case.run()
        numbers = f"{found.repeats:,} | {found.ratio:.2f} | {found.coverage:.3f} | {found.doubted:.3f}"
        name = case.number.replace("|", r"\|")
        print(f"| {name} | {case.model} | {numbers} | {time.perf_counter() - began:.1f} |", flush=True)
    with_floor = SixLevels().mean()
    jensen.diffusion.bound.NARROWEST = 0.0
    print(f"E L_0 of the six levels: {with_floor:.4f} nats; {SixLevels().mean():.4f} without a least sigma_1")


if __name__ == "__main__":
    main(sys.argv[1:])
