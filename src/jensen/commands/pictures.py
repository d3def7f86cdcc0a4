"""Examples and samples as picture files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jensen.errors import InputError
from jensen.records import refuse_existing_file, refuse_filled_folder

if TYPE_CHECKING:
    from torch import Tensor

    from jensen.data.spec import DataSpec


def refuse_taken(out: Path, *others: str) -> None:
    """Raises `InputError` if writing `out` would overwrite something, or if its ending is unknown.

    `out` may be a .png, an .npz, a folder, or a file that ends in one of `others`.
    """
    if out.suffix.lower() not in (".png", ".npz", "", *others):
        tables = f", a table ({', '.join(others)})" if others else ""
        raise InputError(f"--out {out}: expected a .png, an .npz{tables} or a folder; change its ending")
    if out.suffix:
        refuse_existing_file(out)
    else:
        refuse_filled_folder(out)


def save_pictures(
    out: Path,
    x: "Tensor",
    spec: "DataSpec",
    *,
    first: int = 0,
    columns: int | None = None,
    folders: Sequence[str] | None = None,
    beside: "Tensor | None" = None,
) -> None:
    """Write examples x (n, *shape) as one grid (a .png), or as single PNGs that are numbered from `first`.

    x is in the form of the run's preparation. A second grid, of the examples `beside` (n, *shape), stands to the right
    of the grid of x.

    Single PNGs are written into the folder `out`; `folders` names the sub-folder of each picture. Raises `InputError`
    for examples that cannot be shown, and for a folder of signals or volumes.
    """
    from jensen.data.grid import save_grids, save_image
    from jensen.data.pictures import pictures_of

    if not spec.pictured:
        raise InputError(f"--out {out}: examples of shape {spec.shape} are not images; give an .npz")
    if out.suffix != ".png" and spec.layout != "image":
        raise InputError(
            f"--out {out}: image files cannot hold a {spec.layout} of shape {spec.shape}; give an .npz, or a .png for "
            "an overview"
        )
    pictures = pictures_of(x, spec)
    if out.suffix == ".png":
        save_grids([pictures, *([] if beside is None else [pictures_of(beside, spec)])], out, columns)
        return
    for place, picture in enumerate(pictures):
        folder = out / folders[place] if folders else out
        folder.mkdir(parents=True, exist_ok=True)
        save_image(picture, folder / f"{first + place:06d}.png")
