"""Which reader DATA is for: `digits`, a file by its first bytes, a folder by the names in it."""

from pathlib import Path

from jensen.data.options import DEFAULTS, ReadOptions
from jensen.data.readers import parquet
from jensen.data.readers.columns import FILE_MAGIC
from jensen.data.readers.digits import read_digits
from jensen.data.readers.idx import is_idx_name, read_idx_file, read_idx_folder
from jensen.data.readers.image_folder import SUFFIXES, read_images
from jensen.data.readers.numpy_files import read_npy_file, read_npz_file
from jensen.data.readers.reading import Kind, Reading, Refuse
from jensen.errors import InputError

DIGITS = "digits"
EXPECTED = (
    "DATA is 'digits', an IDX file or folder (.gz or not), a .npy or .npz array, "
    "a .parquet or .arrow file or a folder of them, or a folder of PNG, JPEG or WebP images"
)

_APPLIES: dict[str, tuple[Kind, ...]] = {
    "size": ("images", "image table"),
    "colour": ("images", "image table"),
    "skip_bad": ("images", "image table"),
    "layout": ("idx", "array", "table"),
    "levels": ("idx", "array", "table"),
    "array": ("array", "table", "image table"),
    "labels": ("array", "table", "image table"),
    "missing": ("array", "table"),
    "stream": ("idx", "array", "images", "table", "image table"),
}


def read(source: str | Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """All examples of `source`. Raises InputError, or tells `refuse` where reading can go on."""
    if source == DIGITS:
        return read_digits()
    path = Path(source)
    try:
        if path.is_dir():
            return _read_folder(path, options, refuse)
        if path.is_file():
            return _read_file(path, options, refuse)
        if path.exists():
            raise InputError(f"{source}: is neither a file nor a folder; {EXPECTED}")
    except OSError as error:
        raise InputError(f"{error.filename or source}: cannot be read ({error.strerror or error}); check it") from error
    except MemoryError as error:
        raise InputError(f"{source}: does not fit into memory; give a part of it") from error
    raise InputError(f"{source}: no such file or folder; {EXPECTED}")


def check_options(reading: Reading, options: ReadOptions, refuse: Refuse) -> None:
    """Refuses an option that these data cannot heed."""
    for name, kinds in _APPLIES.items():
        if reading.kind not in kinds and getattr(options, name) != getattr(DEFAULTS, name):
            others = f"{', '.join(kinds[:-1])} and {kinds[-1]}" if len(kinds) > 1 else kinds[0]
            refuse(f"--{name.replace('_', '-')} is for {others} but DATA is {reading.kind}; leave it out")
    if reading.levels is not None and options.missing and reading.kind in _APPLIES["missing"]:
        refuse("--missing is for floats, where NaN are missing, but the data are integers; convert them to float32")
    if reading.levels is None and options.levels is not None:
        refuse(f"--levels {options.levels} is for integers but the data are floats; leave it out or convert the data")


def visible_files(folder: Path) -> list[Path]:
    """The files below `folder`, links followed, nothing hidden, in the order of their relative names."""
    files: list[Path] = []
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        directory = waiting.pop()
        if directory.resolve() in seen:  # a link to a folder above
            continue
        seen.add(directory.resolve())
        for entry in directory.iterdir():
            if not entry.name.startswith("."):
                (waiting if entry.is_dir() else files).append(entry)
    return sorted(files, key=lambda path: path.relative_to(folder).parts)


def _read_folder(folder: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    paths = visible_files(folder)
    if not paths:
        raise InputError(f"{folder}: is an empty folder; {EXPECTED}")
    tables = [path for path in paths if path.suffix in parquet.SUFFIXES]
    if tables and any(path.suffix.lower() in SUFFIXES for path in paths):
        raise InputError(f"{folder}: holds both images and {tables[0].suffix} files; name a folder with one of them")
    if tables:
        return parquet.read_table(folder, tables, options, refuse)
    named_idx = [path for path in paths if path.parent == folder and is_idx_name(path)]
    return read_idx_folder(named_idx, options, refuse) if named_idx else read_images(folder, paths, options, refuse)


def _read_file(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    with path.open("rb") as stream:
        start = stream.read(6)
    if start.startswith((b"PAR1", FILE_MAGIC)) or path.suffix in parquet.SUFFIXES:
        return parquet.read_table(path, [path], options, refuse)
    if start == b"\x93NUMPY":
        return read_npy_file(path, options, refuse)
    if start.startswith(b"PK"):
        return read_npz_file(path, options, refuse)
    if start.startswith((b"\0\0", b"\x1f\x8b")) or is_idx_name(path):
        return read_idx_file(path, options, refuse)
    if path.suffix.lower() in SUFFIXES:
        raise InputError(f"{path}: is a single image; name the folder that holds the images")
    if path.suffix.lower() in (".npy", ".npz"):
        raise InputError(f"{path}: does not begin as a {path.suffix.lower()} file does; write it again with numpy")
    raise InputError(f"{path}: is a file of an unknown kind; {EXPECTED}")
