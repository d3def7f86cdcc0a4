"""Every block of README.md and docs/ runs, but for those that say in a comment before them why not.

`<!-- not run: needs MNIST -->` before a block leaves it out, `<!-- slow: twenty searches -->` leaves it to
`make test-slow`. Of the others, Python blocks of a page share one session, and the lines that begin with `jensen ` are
commands; both run, in order, in a folder that holds small runs under the names that the pages use. Commands run with
less effort than the pages ask for (`LIGHTER`). The commands of every block, also of those left out, are parsed.
"""

import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from jensen.cli import main
from jensen.cli.parse import find
from jensen.cli.parse import parse as parse_options
from jensen.commands import commands

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("tutorials/*.md"))]
COMMENT = re.compile(r"<!-- (?P<kind>not run|slow)(?P<reason>.*?)-->", re.S)
OTHER_COMMANDS = re.compile(r"(git|make|pip|python|pytest|torchrun|accelerate|source|for|[A-Z_]+=\S+ \S+) ")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line it begins at, and the comment before it: its kind and reason."""

    language: str
    text: str
    line: int
    kind: str = "run"  # or "not run", "slow"
    reason: str = ""

    @property
    def commands(self) -> list[list[str]]:
        """The words of its jensen commands; what stands after two spaces or # is a remark."""
        text = "" if self.language == "python" else re.sub(r"\\\n\s*", "", self.text)
        found = re.findall(r"(?:^|&& |-m )jensen ((?:(?!  |#|&&|\[options\]).)+)", text, re.M)
        return [shlex.split(words) for words in found if "$" not in words]

    @property
    def has_work(self) -> bool:
        return self.language == "python" or bool(self.commands)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M):
        before = text[: match.start()].rstrip()
        comment = COMMENT.search(before, before.rfind("\n") + 1)
        said = (comment["kind"], comment["reason"].strip(" :")) if comment else ()
        yield Block(match[1], match[2], text.count("\n", 0, match.start()) + 1, *said)


def parse(words: list[str]) -> tuple[str, object]:
    """The name of a command and its options, by the real parser; `InputError` where it refuses them."""
    name, rest = find(words, commands())
    assert name is not None
    return name, parse_options(name, commands()[name], rest)


def named(page: Path) -> str:
    return page.name if page.parent.name != "tutorials" else f"tutorial {page.name}"


# ---------------------------------------------------------------------------------------------- what pages say


def test_a_block_that_is_left_out_says_why() -> None:
    for page in PAGES:
        marked = [block for block in blocks(page) if block.kind != "run"]
        assert all(len(block.reason) > 5 for block in marked), page
        comments = COMMENT.findall(re.sub(r"`<!--.*?-->`", "", page.read_text(encoding="utf-8")))
        assert len(marked) == len(comments), f"{page}: a comment without a block right after it"


def test_a_block_of_other_programs_is_left_out_in_so_many_words() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language != "python" and block.kind != "not run":
                other = [line for line in block.text.splitlines() if OTHER_COMMANDS.match(line)]
                assert not other, f"{page.name}:{block.line} is not run and does not say why: {other[0]}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(b.commands for b in blocks(page))], ids=named)
def test_every_command_is_one(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where recipes/ is
    for block in blocks(page):
        for words in block.commands:
            without = words
            for flag in ("--from", "--columns"):  # there is no run here, whose settings are the defaults, and no file
                place = without.index(flag) if flag in without else len(without)
                without = without[:place] + without[place + 2 :]
            assert parse(without)[0] in commands(), f"{page.name}:{block.line}: {words}"


def test_every_formula_of_the_lecture_is_run() -> None:
    lecture = (ROOT / "docs" / "lecture.md").read_text(encoding="utf-8")
    page = (ROOT / "docs" / "lecture_by_formula.md").read_text(encoding="utf-8")
    stated = re.findall(r"^- \((\d\.\d+)\)|(?<=\. )\((\d\.\d+)\) ", lecture, re.M)
    sections = dict(re.findall(r"^### \((\d\.\d+)\)(.*?)(?=^##|\Z)", page, re.S | re.M))
    assert len(stated) > 40
    assert list(sections) == [first or second for first, second in stated]
    assert all("assert" in "".join(re.findall(r"```python\n(.*?)```", text, re.S)) for text in sections.values())


# ---------------------------------------------------------------------------------------------- running them


VAE = ["runs/vae", "runs/demo/vae", "runs/joint", "runs/vae-per-datapoint"]
DIFFUSION = [
    "runs/diffusion",
    "runs/demo/diffusion",
    "runs/ddpm",
    "runs/digits",
    "runs/mine",
    "runs/other",
    "OTHER_RUN",
]
TINY = {
    "vae": "--predict label --latent-dims 2 --hidden 16 --fit-steps 5 --steps 20 --validation-examples 20",
    "diffusion": "--widths 8 --octaves 0 --chain-steps 10 --bound-terms 4 --sampling-steps 3 --steps 6 "
    "--validation-examples 10",
}
TABLES = {"people.csv", "runs/people", "wine.csv", "runs/wine"}
LIGHTER = {
    "train vae": {"steps": 10, "latent-dims": 2, "hidden": 16, "fit-steps": 2},
    "train vae of a table": {"steps": 10, "latent-dims": 2, "width": 8, "fit-steps": 2},
    "score of a table": {"explained": 5},
    "train diffusion": {"steps": 3, "widths": 8, "chain-steps": 30, "sampling-steps": 3, "validation-examples": 10},
    "train latent": {
        "steps": 5, "vae.network": "mlp", "vae.hidden": 16, "vae.latent-dims": 2, "prior.width": 8, "prior.depth": 1,
        "prior.chain-steps": 30, "prior.sampling-steps": 3, "prior.bound-terms": 3, "validation-examples": 10,
    },
    "evaluate": {"examples": 8, "further-examples": 2, "samples": 16},
    "evaluate --error": {"error": 100},
    "compare --error": {"error": 100},
    "evaluate --referee": {
        "examples": 8, "further-examples": 2, "samples": 16, "referee-examples": 2, "temperatures": 5, "chains": 2,
    },
    "sample": {"n": 4},
    "predict": {"examples": 6, "draws": 4},
    "impute": {"examples": 2, "draws": 2},
    "features train": {"passes": 2},
    "features distance": {"n": 30, "steps": 2},
    "features check": {"n": 30},
    "compress": {"examples": 4},
}  # fmt: skip


def lighter(words: list[str]) -> list[str]:
    """The command with placeholders filled in and with as little work as still goes through all of it."""
    name, _ = find(words, commands())
    special = next((f" {flag}" for flag in ("--error", "--referee") if flag in words), "")
    kind = special or (" of a table" if TABLES & {*words} else "")
    less = LIGHTER.get(f"{name}{kind}", LIGHTER.get(name, {}))
    data = "mine.npz" if "runs/target" in words else "digits"
    kept, flag = [], ""
    for word in words:
        flag = word.removeprefix("--") if word.startswith("--") else flag
        kept += [] if flag in less else [data if word in ("DATA", "NEW_DATA") else word]
    return kept + [part for flag, value in less.items() for part in (f"--{flag}", str(value))]


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs and the data that the pages speak of: one small run of each family, under many names."""
    folder = tmp_path_factory.mktemp("pages")
    random = np.random.default_rng(0)
    for family, names in (("vae", VAE), ("diffusion", DIFFUSION)):
        assert main(["train", family, "--out", str(folder / names[0]), *TINY[family].split()]) == 0
        assert main(lighter(["evaluate", str(folder / names[0])])) == 0
        for name in names[1:]:
            shutil.copytree(folder / names[0], folder / name)
    table = random.normal(size=(40, 5)).astype("float32")
    np.savez(folder / "mine.npz", x=table, y=table[:, :2])
    table[random.random((40, 5)) < 0.2] = np.nan
    np.save(folder / "table.npy", table)
    small = ["--data", str(folder / "table.npy"), "--missing", "--latent-dims", "2", "--steps", "10"]
    assert main(["train", "vae", "--out", str(folder / "runs/table"), *small]) == 0
    return folder


@pytest.fixture
def desk(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the prepared folder to work in, which leaves torch as it was."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_default_dtype(torch.float32)


def to_run(words: list[str]) -> list[str]:
    """The command, lighter, with its target out of the way; a prepared run stays where the page trains one anew."""
    config = Path(words[words.index("--config") + 1]).stem if "--config" in words else ""
    target = Path(words[words.index("--out") + 1] if "--out" in words else f"runs/{config}")
    if words[0] == "train" and target.is_dir():
        shutil.rmtree("anew", ignore_errors=True)
        return lighter([*words, "--out", "anew"])
    if target.suffix:
        shutil.rmtree(target.with_name(f"{target.stem}-report"), ignore_errors=True)  # of predict
        target.unlink(missing_ok=True)
    return lighter(words)


def pages_that_run() -> Iterator[object]:
    """Every page with its quick blocks; those that have slow ones once more, as a slow test, with all."""
    for page in PAGES:
        kinds = {block.kind for block in blocks(page) if block.has_work}
        if "run" in kinds:
            yield pytest.param(page, {"run"}, id=named(page))
        if "slow" in kinds:
            yield pytest.param(page, {"run", "slow"}, id=f"{named(page)}, all", marks=pytest.mark.slow)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("page", "kinds"), list(pages_that_run()))
def test_a_page_runs(page: Path, kinds: set[str], desk: Path) -> None:
    shutil.copytree("runs/diffusion" if page.name.startswith("diffusion") else "runs/vae", "RUN")
    session: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.kind in kinds and block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), session)
        elif block.kind in kinds:
            for words in block.commands:
                assert main(to_run(words)) == 0, f"{page.name}:{block.line}: jensen {shlex.join(words)}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "lecture.md"], ids=named)
def test_lines_are_at_most_120_columns(page: Path) -> None:
    """All but rows of tables and pictures, which cannot be broken."""
    lines = page.read_text(encoding="utf-8").splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith(("|", "!"))]
