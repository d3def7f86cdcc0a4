"""What a release needs: `make release-check` runs it, prints a line for each check, and fails if one fails.

A check whose service or interpreter cannot be reached is "not done", with the reason; nothing is claimed for it.
"""

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ["build", "twine", "cyclonedx-bom", "pip-audit", "uv"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
USER = """\
import numpy as np
import jensen
from jensen.training.settings import TrainingSettings

run: jensen.Run = jensen.train(jensen.VAERecipe(data="digits", training=TrainingSettings(steps=5)), "typed")
scored = jensen.score(run, np.zeros((2, 8, 8), np.uint8))
bound: float = scored.bound.mean().item()
codes = jensen.encode(run)
pictures: np.ndarray = jensen.decode(run, codes.z).x
names: list[str] = jensen.interpolate(run, codes.names[0], codes.names[1]).names
"""


class NotDoneError(Exception):
    """A check that cannot be done here."""


def run(*words: str | Path, cwd: Path | None = None, **environment: str) -> str:
    """The output of a command. Raises `RuntimeError` with its last lines if it fails."""
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, words))}: " + "\n".join((done.stdout + done.stderr).splitlines()[-15:]))
    return done.stdout


def built(tools: Path, work: Path) -> list[Path]:
    """The wheel and the sdist of the last commit, built in a fresh copy; both are functions of the commit."""
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    copy = work / "jensen"
    copy.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(copy, filter="data")
    run(tools / "python", "-m", "build", "--outdir", work / "dist", copy, SOURCE_DATE_EPOCH=epoch)
    for sdist in (work / "dist").glob("*.tar.gz"):
        settle(sdist, int(epoch))
    return sorted((work / "dist").iterdir())


def settle(sdist: Path, epoch: int) -> None:
    """Write an sdist again without the time and the user of the build, which setuptools puts into it."""
    content = io.BytesIO()
    with tarfile.open(sdist) as old, tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.mode, member.pax_headers = 0o755 if member.isdir() or member.mode & 0o100 else 0o644, {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)
    with sdist.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=epoch) as packed:
        packed.write(content.getvalue())


def digests(files: list[Path]) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def described(tools: Path, files: list[Path]) -> str:
    """The metadata of the wheel and the sdist, as the index will check them."""
    run(tools / "twine", "check", "--strict", *files)
    return f"{len(files)} files"


def cited(work: Path) -> str:
    """CITATION.cff, by its own validator, in an environment of its own: it needs an old jsonschema."""
    run(sys.executable, "-m", "venv", work / "cff")
    run(
        work / "cff/bin/python", "-m", "pip", "install", "--quiet", "cffconvert", "setuptools<81"
    )  # it uses pkg_resources
    return run(work / "cff/bin/cffconvert", "--validate", cwd=ROOT).strip()


def interpreter(version: str, tools: Path) -> str:
    """A Python of this version on this machine, or one that uv can fetch."""
    beside = sorted(Path.home().glob(f".pyenv/versions/{version}*/bin/python{version}"))
    for path in (shutil.which(f"python{version}"), *map(str, beside)):
        if path and subprocess.run([path, "-c", "import venv, ssl"], capture_output=True, check=False).returncode == 0:
            return path
    try:
        run(tools / "uv", "python", "install", version)
        return run(tools / "uv", "python", "find", version).strip()
    except RuntimeError as error:
        raise NotDoneError(f"there is no Python {version} here, and uv cannot fetch one") from error


def used_outside(version: str, tools: Path, wheel: Path, work: Path) -> str:
    """The wheel installed by pip into a fresh environment, and used in a folder that is not the repository."""
    python = interpreter(version, tools)
    place = work / f"python{version}"
    run(python, "-m", "venv", place)
    inside = place / "bin/python"
    try:
        constraints = ["--constraint", ROOT / "constraints.txt"] if version == PYTHONS[0] else []
        run(inside, "-m", "pip", "install", "--quiet", *constraints, f"{wheel}[tables]", "mypy")
    except RuntimeError as error:
        if re.search(r"No matching distribution found for torch|from versions: none", str(error)):
            raise NotDoneError(f"the registry has no torch for Python {version}") from error
        raise
    desk = work / f"desk{version}"
    desk.mkdir()
    clean = {"PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    run(place / "bin/jensen", "demo", "--quick", cwd=desk, **clean)
    run(place / "bin/jensen", "encode", "runs/demo/vae", "--out", "codes.parquet", cwd=desk, **clean)
    told = run(place / "bin/jensen", "--version", "--verbose", cwd=desk, **clean)
    (desk / "user.py").write_text(USER)
    run(inside, "-m", "mypy", "--strict", "user.py", cwd=desk, **clean)
    run(inside, "-W", "ignore", "user.py", cwd=desk, **clean)
    return seen(told)


def by_uvx(tools: Path, wheel: Path, work: Path, python: str) -> str:
    """`uvx jensen`, from the wheel, as a user types it: with the newest packages that uv finds."""
    desk = work / "uvx"
    desk.mkdir()
    words = (tools / "uvx", "--python", python, "--from", wheel)
    clean = {"UV_CACHE_DIR": str(work / "uv-cache"), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    run(*words, "jensen", "demo", "--quick", cwd=desk, **clean)
    return seen(run(*words, "jensen", "--version", "--verbose", cwd=desk, **clean))


def seen(told: str) -> str:
    """What `jensen --version --verbose` tells of Python and torch, on a line."""
    return "; ".join(" ".join(line.split()) for line in told.splitlines() if line.startswith(("Python", "torch")))


def installed(work: Path, versions: list[str]) -> Path:
    """The environment of the first Python that the wheel was installed for."""
    for version in versions:
        if (work / f"desk{version}").exists():
            return work / f"python{version}"
    raise NotDoneError("the wheel was installed for no Python")


def advisories(tools: Path, *what: str | Path) -> tuple[dict[str, list[str]], list[str]]:
    """The known vulnerabilities of each package that pip-audit could look up, and the packages that it could not."""
    words = [tools / "pip-audit", "--progress-spinner", "off", "--timeout", "20", "--format", "json", *what]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        raise NotDoneError(f"pip-audit got no answer: {(done.stderr.splitlines() or ['no message'])[-1]}")
    packages = json.loads(done.stdout)["dependencies"]
    asked = {package["name"]: [each["id"] for each in package["vulns"]] for package in packages if "vulns" in package}
    return asked, [package["name"] for package in packages if "vulns" not in package]


def audited(tools: Path, place: Path, work: Path) -> str:
    """The installed packages against the advisories of PyPI.

    pip-audit also reports success if it could look up no package at all, so it must first find a flaw that is there.
    """
    flawed = work / "flawed.txt"
    flawed.write_text("jinja2==2.10\n")
    if not advisories(tools, "--disable-pip", "--no-deps", "--requirement", flawed)[0].get("jinja2"):
        raise NotDoneError("the service tells no advisory of jinja2 2.10, which has several; so nothing is known")
    asked, left = advisories(tools, "--path", next((place / "lib").glob("python*/site-packages")))
    if flaws := [f"{name}: {', '.join(ids)}" for name, ids in asked.items() if ids]:
        raise RuntimeError("; ".join(flaws))
    return f"no known vulnerability in {len(asked)} packages; not looked up: {', '.join(left) or 'none'}"


def bill(tools: Path, place: Path, out: Path) -> str:
    """The bill of materials of the installed packages, in CycloneDX."""
    run(tools / "cyclonedx-py", "environment", place / "bin/python", "--output-file", out, "--output-reproducible")
    return str(out)


def main() -> int:
    failed = 0

    def check(name: str, action: Callable[[], str]) -> None:
        nonlocal failed
        try:
            print(f"ok        {name}: {action()}", flush=True)
        except NotDoneError as reason:
            print(f"NOT DONE  {name}: {reason}", flush=True)
        except Exception as error:
            failed += 1
            print(f"FAILED    {name}: {error}", flush=True)

    with tempfile.TemporaryDirectory(prefix="jensen-release-") as folder:
        work = Path(folder)
        run(sys.executable, "-m", "venv", work / "tools")
        tools = work / "tools/bin"
        run(tools / "python", "-m", "pip", "install", "--quiet", *TOOLS)
        print("ok        tools installed", flush=True)
        first, second = built(tools, work / "first"), built(tools, work / "second")
        dist = ROOT / "dist"
        dist.mkdir(exist_ok=True)
        kept = [Path(shutil.copy(file, dist)) for file in first]
        wheel = next(file for file in kept if file.suffix == ".whl")

        def equal() -> str:
            if digests(first) != digests(second):
                raise RuntimeError(f"{digests(first)} and {digests(second)}")
            return ", ".join(f"{name} {digest[:16]}" for name, digest in digests(first).items())

        check("built twice, equal byte for byte", equal)
        check("metadata", lambda: described(tools, kept))
        check("CITATION.cff", lambda: cited(work))
        versions = os.environ.get("PYTHONS", " ".join(PYTHONS)).split()
        for version in versions:
            check(f"used outside, Python {version}", partial(used_outside, version, tools, wheel, work))
        check("uvx", lambda: by_uvx(tools, wheel, work, interpreter(versions[0], tools)))
        check("bill of materials", lambda: bill(tools, installed(work, versions), dist / "sbom.cdx.json"))
        check("pip-audit", lambda: audited(tools, installed(work, versions), work))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
