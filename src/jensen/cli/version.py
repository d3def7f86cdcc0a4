"""`jensen --version --verbose`: what a report of a bug should say about the installation. It names no path."""

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version


def lines() -> Iterator[str]:
    """The installation in words: versions, the machine, torch's build and devices, and the packages of the extras."""
    import torch

    from jensen import __version__

    yield f"jensen      {__version__}"
    yield f"Python      {platform.python_version()} ({platform.python_implementation()})"
    yield f"system      {platform.platform()}"
    cuda, rocm = torch.version.cuda, torch.version.hip
    built = f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "the CPU"
    yield f"torch       {torch.__version__}, built for {built}, {torch.get_num_threads()} threads"
    count = torch.cuda.device_count()
    for number in range(count):
        of = torch.cuda.get_device_properties(number)
        yield f"device      cuda:{number} {of.name}, {of.total_memory / 2**30:.0f} GiB"
    if not count:
        yield "device      cpu"
    for extra, packages in _packages().items():
        found = ", ".join(f"{name} {_version(name) or 'absent'}" for name in packages)
        yield f"{extra:<11} {found}"


def _packages() -> dict[str, list[str]]:
    """The packages that jensen requires, by the extra that requires them; "requires" without an extra."""
    try:
        wanted = requires("jensen") or []
    except PackageNotFoundError:  # a source tree that is not installed
        return {}
    found: dict[str, list[str]] = {"requires": []}
    for requirement in wanted:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"](.+?)['\"]", requirement)
        found.setdefault(extra[1] if extra else "requires", []).append(name)
    return {extra: packages for extra, packages in found.items() if extra not in ("dev", "benchmarks", "docs")}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
