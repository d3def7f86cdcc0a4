"""`jensen demo`: train both families on embedded data, evaluate them and compare them."""

import shutil
import sys
from pathlib import Path

from jensen.commands.common import Command
from jensen.errors import InputError
from jensen.evaluation.settings import EvaluationSettings
from jensen.recipe.diffusion.settings import DiffusionRecipe, DiffusionSettings, DiffusionTraining
from jensen.recipe.families import Recipe
from jensen.recipe.vae.settings import VAERecipe, VAESettings
from jensen.training.settings import TrainingSettings

RECIPES: dict[str, Recipe] = {
    "vae": VAERecipe(
        data="digits",
        model=VAESettings(latent_dims=16, hidden=(256, 128), activation="gelu"),
        training=TrainingSettings(
            steps=3000,
            batch_size=128,
            learning_rate=2e-3,
            warmup_steps=100,
            weight_decay=0.1,
            ema_decay=0.995,
            validate_every=250,
            patience=3,
        ),
    ),
    "diffusion": DiffusionRecipe(
        data="digits",
        model=DiffusionSettings(
            widths=(32, 64),
            blocks=1,
            octaves=0,
            sigma_data=0.7,
            bound_terms=32,
            sampler="dpm-solver++-sde",
            sampling_steps=30,
        ),
        training=DiffusionTraining(
            steps=1200,
            batch_size=32,
            learning_rate=3e-3,
            warmup_steps=50,
            ema_decay=0.99,
            validate_every=600,
            sample_every=1200,
            first_look=0,  # a demo of two minutes needs no early look
        ),
    ),
}
SETTINGS = {"vae": EvaluationSettings(), "diffusion": EvaluationSettings(draws=4, further_examples=36)}
PAGE = {"report.html", "pictures"}
FEW = {"steps": 20, "warmup_steps": 0, "validate_every": 20}
QUICK = {
    name: recipe.model_copy(update={"training": recipe.training.model_copy(update=FEW)})
    for name, recipe in RECIPES.items()
}
QUICK_SETTINGS = EvaluationSettings(examples=40, draws=2, further_examples=4, samples=100)


class Demo(Command):
    """Train both families on embedded digits and compare them: two minutes."""

    out: Path = Path("runs/demo")
    """The folder for the two runs and their common report. An earlier demo in it is replaced."""
    quick: bool = False
    """Train for a few steps and evaluate few examples: a check of an installation, in half a minute."""

    def execute(self) -> None:
        """Train both families, evaluate them, compare them; print where to look and what to try next."""
        from rich.console import Console

        from jensen.commands.compare import Comparison
        from jensen.commands.evaluate import evaluate
        from jensen.commands.features_train import features_train, show
        from jensen.run import opened, train

        _clear(self.out)
        print("Training a variational autoencoder and a diffusion model on 1,797 handwritten digits of 8x8 pixels.")
        compared = []
        for name, recipe in (QUICK if self.quick else RECIPES).items():
            print(f"\n{name}:")
            run = opened(train(recipe, self.out / name).folder)
            if run.model.classes:
                show(run, features_train(run))
            found = evaluate(run, settings=QUICK_SETTINGS if self.quick else SETTINGS[name])
            found.save()
            Console().print(found.table())
            compared.append(found.results)
        both = Comparison(compared)
        page = both.save(self.out, "A variational autoencoder and a diffusion model of digits")
        Console().print(both.table())
        _advise(page, self.out)


def _clear(out: Path) -> None:
    """Remove an earlier demo; raises `InputError` if the folder holds other files, which might be a user's work."""
    if not out.exists():
        return
    from jensen.run import recipe_of

    found = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
    if not found:
        return
    ours = out.is_dir() and found <= RECIPES.keys() | PAGE
    if not (ours and all(recipe_of(out / name) in (RECIPES[name], QUICK[name]) for name in found - PAGE)):
        raise InputError(f"--out {out} holds something that is not a demo; give a new folder")
    shutil.rmtree(out)


def _advise(page: Path, out: Path) -> None:
    called = "python -m jensen" if Path(sys.argv[0]).name == "__main__.py" else sys.argv[0]  # .venv/bin/jensen
    program = "jensen" if shutil.which("jensen") else called
    print(f"\nLook at {page}\n\nThen try:")
    print(f"  {program} sample {out / 'diffusion'} --label 7 --n 100 --out {out / 'sevens.png'}")
    print(f"  {program} score {out / 'vae'} --out {out / 'scores.csv'}")
    print(f"  {program} train diffusion --data FOLDER_OF_IMAGES --out runs/mine")
