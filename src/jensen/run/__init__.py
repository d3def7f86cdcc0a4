"""A run: a self-describing folder, made by `train`, continued by `resume`, opened by `load`.

recipe.json      the recipe                        checkpoints/   weights and optimiser state
data.json        the description of the data       metrics.jsonl  one line per logging window
history.json     changes of the recipe             tensorboard/   the same for TensorBoard
samples/         grids of samples during training  .lock          locked while the run is trained
"""

from jensen.run.folder import RECIPE, recipe_of
from jensen.run.run import Run, load, opened
from jensen.run.session import establish_untrained, resume, train

__all__ = ["RECIPE", "Run", "establish_untrained", "load", "opened", "recipe_of", "resume", "train"]
