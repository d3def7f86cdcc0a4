"""The house rules that no linter knows: import is light, shapes are checked; formulas, links and pins exist."""

import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

import jensen
from jensen.diffusion import AbstractGrid, AbstractSampler, BetaVariance
from jensen.gaussian import standard_normal_kl
from jensen.recipe.diffusion.build import build_generation
from jensen.recipe.diffusion.samplers import SAMPLERS
from jensen.recipe.diffusion.settings import DiffusionSettings
from jensen.recipe.families import RECIPES, family_of

ROOT = Path(__file__).resolve().parents[1]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def test_importing_jensen_loads_no_plots_web_or_command_line():
    heavy = ["PIL", "accelerate", "matplotlib", "rich", "sklearn", "tensorboard", "tyro"]
    program = f"import jensen, sys; print([name for name in {heavy} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"


def test_shapes_are_checked_while_tests_run():
    with pytest.raises(TypeCheckError):
        standard_normal_kl(torch.zeros(3, 2), torch.ones(3, 4))


def test_every_formula_that_code_quotes_is_in_the_lecture():
    known = set(re.findall(r"\((\d\.\d+)\)", (ROOT / "docs/lecture.md").read_text()))
    for file in sorted(ROOT.glob("src/**/*.py")):
        quoted = set(re.findall(r"(?<!\w)\((\d\.\d+)\)", file.read_text()))
        assert quoted <= known, f"{file.name} quotes {sorted(quoted - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text()
    pages = [page.relative_to(ROOT / "docs") for page in PAGES if page.is_relative_to(ROOT / "docs")]
    for page in pages:
        assert str(page) == "README.md" or f"({page})" in index, f"docs/README.md does not list {page}"


def test_both_maps_of_the_chapters_are_the_import_law():
    law = [set(layer.split(" | ")) for layer in reversed(CONTRACTS[0]["layers"]) if layer != "__main__"]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert [set(re.findall(r"\w+", row)) for row in rows] == law
    listed = re.findall(r"^    (\w+)  ", jensen.__doc__, re.M)
    assert sorted(listed) == sorted(chain(*law))
    order = [next(floor for floor, chapters in enumerate(law) if chapter in chapters) for chapter in listed]
    assert order == sorted(order)


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(chain(project["dependencies"], *project["optional-dependencies"].values()))
    pinned = [line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    normal = {name.lower().replace("_", "-") for name in pinned}
    assert {re.split(r"[^\w-]", name)[0].lower() for name in wanted} <= normal


def test_the_import_law_knows_every_family():
    """A family's own chapter is one that networks, data, training, evaluation and the report may not import."""
    for family in RECIPES:
        for contract in CONTRACTS[1:]:
            assert f"jensen.{family}" in contract["forbidden_modules"], (family, contract["id"])


@pytest.mark.parametrize("name", RECIPES)
def test_a_family_says_what_reports_and_commands_ask_of_it(name):
    family = family_of(RECIPES[name].model_validate({}))
    assert family.words.name
    assert isinstance(family.conditional_advice, str)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_of_the_table_is_one(name):
    generation = build_generation(DiffusionSettings(sampler=name), BetaVariance())
    assert isinstance(generation.sampler, AbstractSampler)
    assert isinstance(generation.grid, AbstractGrid)
