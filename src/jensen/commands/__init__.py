"""The verbs, one file each: the options of the command, and a function of a run that computes and returns a value.

Python code calls the function (`jensen.score(run)`). The command line calls `Command.execute`, which opens the run,
calls the function, and shows and writes its value by `report` and `records`. Importing a command imports no torch.
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
    "encode": "encode.Encode",
    "decode": "decode.Decode",
    "interpolate": "interpolate.Interpolate",
    "compress": "compress.Compress",
    "decompress": "decompress.Decompress",
    "export": "export.Export",
    "import": "import_run.Import",
    "serve": "serve.Serve",
    "info": "info.Info",
    "data check": "data_check.DataCheck",
    "completion": "completion.Completion",
}
"""The file and the options class of each command, by the command's name; `train` stands for every family."""


def commands() -> "dict[str, type[Command]]":
    """Every command by its name: `train vae`, `sample`, ..."""
    found: dict[str, type[Command]] = {}
    for words, home in HOMES.items():
        module, _, name = home.partition(".")
        kind = getattr(import_module(f"jensen.commands.{module}"), name)
        found |= kind.by_family() if words == "train" else {words: kind}
    return found
