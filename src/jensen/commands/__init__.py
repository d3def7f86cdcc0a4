"""The verbs: one file each, with its options and a function of a run that computes a value and gives it back.

The function is what Python calls (`jensen.score(run)`); `Command.execute` is what the command line does: it opens the
run, calls that function, and hands the value to `report` or `records` to be shown and written. Importing a command
imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jensen.commands.common import Command

HOMES = {
    "demo": "demo.Demo",
    "train": "train.Train",
    "resume": "resume.Resume",
    "sample": "sample.Sample",
    "reconstruct": "reconstruct.Reconstruct",
    "evaluate": "evaluate.Evaluate",
    "compare": "compare.Compare",
    "score": "score.Score",
    "predict": "predict.Predict",
    "impute": "impute.Impute",
    "features train": "features_train.FeaturesTrain",
    "features distance": "features_distance.FeaturesDistance",
    "features check": "features_check.FeaturesCheck",
    "compress": "compress.Compress",
    "decompress": "decompress.Decompress",
    "info": "info.Info",
    "data check": "data_check.DataCheck",
}
"""The file and the class of options of each command, by the words that call it; `train` stands for every family."""


def commands() -> "dict[str, type[Command]]":
    """Every command by the words that call it: `train vae`, `sample`, ..."""
    found: dict[str, type[Command]] = {}
    for words, home in HOMES.items():
        module, _, name = home.partition(".")
        kind = getattr(import_module(f"jensen.commands.{module}"), name)
        found |= kind.by_family() if words == "train" else {words: kind}
    return found
