"""Where a command may write: what is there already is never replaced, and this is known before any work is done."""

from pathlib import Path

from jensen.errors import InputError


def check_file(out: Path, *endings: str) -> None:
    """Refuse `--out` that has none of the endings, where there are any, or that exists, be it as a folder or a link."""
    if endings and out.suffix not in endings:
        raise InputError(f"--out {out}: expected {' or '.join(endings)}; change its ending")
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give a new file")
    if out.exists() or out.is_symlink():
        raise InputError(f"--out: {out} exists and would be lost; give another name, or remove it first")


def check_folder(out: Path) -> None:
    """Refuse `--out` that is neither new nor an empty folder."""
    taken = any(out.iterdir()) if out.is_dir() else out.exists() or out.is_symlink()
    if taken:
        raise InputError(f"--out {out} is not an empty folder; give a new one")
