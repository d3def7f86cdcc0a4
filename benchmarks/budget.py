"""Training in time: the minutes asked for and taken, and the forecasts of the opening line, of both families.

python benchmarks/budget.py --data FOLDER_OF_THE_FOUR_IDX_FILES
    runs `jensen train FAMILY --minutes M`, ten commands in all, and prints a row for each.
python benchmarks/budget.py --data FOLDER_OF_THE_FOUR_IDX_FILES --steps
    runs `jensen train FAMILY --steps N`, where N comes from half a minute, and compares forecast and truth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--minutes", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--in-process", action="store_true", help="call jensen.train, with everything imported before")
    parser.add_argument("--steps", action="store_true", help="give steps in place of minutes")
    arguments = parser.parse_args()
    trained = by_call if arguments.in_process else by_command
    cases = [(family, data) for data in ("digits", arguments.data) for family in ("vae", "diffusion")]
    print("| family | data | asked, s | forecast, s | taken, s | taken / asked | forecast / taken | steps | changes |")
    print("|---|---|---|---|---|---|---|---|---|")
    if arguments.in_process:
        with tempfile.TemporaryDirectory() as folder:
            for family, _ in cases[:2]:
                by_call(family, "digits", Path(folder) / family, ["--steps", "2"])
    worst = {"taken / asked": 0.0, "forecast / taken": 0.0}
    for run in range(arguments.runs):
        family, data = cases[run % len(cases)]
        minutes = arguments.minutes[run % len(arguments.minutes)]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            taken = trained(family, data, out, ["--minutes", str(minutes)])
            if arguments.steps:
                steps = json.loads((out / "recipe.json").read_text())["training"]["steps"]
                out = Path(folder) / "again"
                taken = trained(family, data, out, ["--steps", str(max(steps, 100))])
            plan = json.loads((out / "plan.json").read_text())
            history = out / "history.json"
            changes = len(json.loads(history.read_text())["changes"]) if history.exists() else 0
        asked = 60 * minutes
        forecast = plan["expected_seconds"] / taken
        worst["forecast / taken"] = max(worst["forecast / taken"], abs(forecast - 1))
        if not arguments.steps:
            worst["taken / asked"] = max(worst["taken / asked"], abs(taken / asked - 1))
        print(
            f"| {family} | {Path(data).name} | {'' if arguments.steps else f'{asked:.0f}'} "
            f"| {plan['expected_seconds']:.1f} | {taken:.1f} "
            f"| {'' if arguments.steps else f'{taken / asked:.3f}'} | {forecast:.3f} | {plan['steps']} | {changes} |",
            flush=True,
        )
    print("\nlargest difference from 1: " + ", ".join(f"{name} {value:.1%}" for name, value in worst.items()))
    print(f"load of the machine: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores")


def by_command(family: str, data: str, out: Path, flags: list[str]) -> float:
    """The seconds of one training command, from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "jensen", "train", family, "--data", data, "--out", str(out), *flags]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def by_call(family: str, data: str, out: Path, flags: list[str]) -> float:
    """The seconds of one call of `jensen.train`."""
    import jensen

    name, value = flags[0].removeprefix("--"), float(flags[1])
    recipe = jensen.VAERecipe if family == "vae" else jensen.DiffusionRecipe
    began = time.perf_counter()
    jensen.train(recipe(data=data, training={name: int(value) if name == "steps" else value}), out)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
