"""A run: a folder that explains itself, made by `train`, continued by `resume`, opened by `load`.

recipe.json      what was asked for           checkpoints/   weights and optimiser state
data.json        what was read                metrics.jsonl  a line per logging window, and tensorboard/
history.json     changes of the training
samples/         a grid of samples now and then   .lock          held while it is trained
"""

from jensen.run.folder import RECIPE, recipe_of
from jensen.run.run import Run, load, opened
from jensen.run.session import resume, train

__all__ = ["RECIPE", "Run", "load", "opened", "recipe_of", "resume", "train"]
