"""The choice of the reader for DATA: by the first bytes of a file, by the file names in a folder."""

from pathlib import Path

from jensen.data.options import DEFAULTS, ReadOptions
from jensen.data.readers import parquet
from jensen.data.readers.columns import FILE_MAGIC
from jensen.data.readers.digits import read_digits
from jensen.data.readers.idx import is_idx_name, is_idx_start, read_idx_file, read_idx_folder
from jensen.data.readers.image_folder import SUFFIXES, read_images
from jensen.data.readers.kinds import ENOUGH, identify
from jensen.data.readers.memory import MEMORY, Source, read_arrays
from jensen.data.readers.numpy_files import read_npy_file, read_npz_file
from jensen.data.readers.reading import SPLITS, Kind, Reading, Refuse
from jensen.data.readers.tiles import tiled
from jensen.errors import InputError

DIGITS = "digits"
EXPECTED = (
    "DATA is 'digits', an IDX file or folder (.gz or not), a .npy or .npz array, "
    "a .parquet or .arrow file or a folder of them, or a folder of PNG, JPEG or WebP images"
)

_WORDS: dict[Kind, str] = {
    "digits": "digits",
    "idx": "IDX",
    "array": "a single array (.npy)",
    "arrays": "named arrays (.npz)",
    "array in memory": "a single array in memory",
    "arrays in memory": "a dict of arrays",
    "images": "a folder of images",
    "table": "a table of numbers",
    "image table": "a table of images",
}

_IMAGES: tuple[Kind, ...] = ("images", "image table")
_NAMED: tuple[Kind, ...] = ("arrays", "arrays in memory", "table", "image table")
_ARRAYS: tuple[Kind, ...] = ("array", "array in memory", "arrays", "arrays in memory", "table")

_HEEDED_BY: dict[str, tuple[Kind, ...]] = {
    "size": _IMAGES,
    "tile": ("idx", *_ARRAYS, *_IMAGES),
    "colour": _IMAGES,
    "skip_bad": _IMAGES,
    "layout": ("idx", *_ARRAYS),
    "levels": ("idx", *_ARRAYS),
    "array": _NAMED,
    "labels": _NAMED,
    "missing": _ARRAYS,
    "stream": ("idx", "array", "arrays", "table", *_IMAGES),
}
"""The kinds of source on which each option of reading has an effect; options of splitting are not included."""


def read(source: Source, options: ReadOptions, refuse: Refuse) -> Reading:
    """All examples of `source`. Raises InputError for a problem, or calls `refuse` if reading can continue."""
    return tiled(_read(source, options, refuse), options, refuse)


def _read(source: Source, options: ReadOptions, refuse: Refuse) -> Reading:
    if not isinstance(source, str | Path):
        return read_arrays(source, options, refuse)
    if source == DIGITS:
        return read_digits()
    if source == MEMORY:
        raise InputError(
            "memory: these data were arrays in memory, which no file holds; give the arrays themselves as data, from "
            "Python, or write them with numpy.savez and give the file (a folder of that name is ./memory)"
        )
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
    """Refuses every option that has no effect on the data."""
    given = {name for name in type(options).model_fields if getattr(options, name) != getattr(DEFAULTS, name)}
    for name, kinds in _HEEDED_BY.items():
        if name in given and reading.kind not in kinds:
            *first, last = (_WORDS[kind] for kind in kinds)
            refuse(
                f"{_flag(name)} is for {', '.join(first)} and {last} but DATA is {_WORDS[reading.kind]}; leave it out"
            )
    if reading.levels is not None and options.missing and reading.kind in _HEEDED_BY["missing"]:
        refuse("--missing is for floats, where NaN are missing, but the data are integers; convert them to float32")
    _check_options_of_splits(reading, options, given, refuse)
    if reading.levels is None and options.levels is not None:
        refuse(f"--levels {options.levels} is for integers but the data are floats; leave it out or convert the data")


def _check_options_of_splits(reading: Reading, options: ReadOptions, given: set[str], refuse: Refuse) -> None:
    supplied = set() if reading.supplied is None else {SPLITS[code] for code in set(reading.supplied.tolist())}
    for split in supplied - {"train"}:
        if f"{split}_fraction" in given:
            refuse(f"--{split}-fraction: DATA brings its own {split} examples; leave it out")
    fractions = {"validation": options.validation_fraction, "test": options.test_fraction}
    if "split_seed" in given and not any(fraction for split, fraction in fractions.items() if split not in supplied):
        refuse(f"--split-seed {options.split_seed}: no split is drawn from these data; leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def visible_files(folder: Path) -> list[Path]:
    """The files below `folder` in the order of their relative names; links are followed, hidden names left out."""
    files: list[Path] = []
    seen: set[Path] = set()
    waiting = [folder]
    while waiting:
        directory = waiting.pop()
        if directory.resolve() in seen:  # a link to a parent folder
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
        start = stream.read(ENOUGH)
    if start.startswith((b"PAR1", FILE_MAGIC)) or path.suffix in parquet.SUFFIXES:
        return parquet.read_table(path, [path], options, refuse)
    if start.startswith(b"\x93NUMPY"):
        return read_npy_file(path, options, refuse)
    if start.startswith(b"PK"):
        return read_npz_file(path, options, refuse)
    kind = identify(start)
    if is_idx_name(path) or is_idx_start(start) or (kind is None and start.startswith(b"\0\0")):
        return read_idx_file(path, options, refuse)
    if path.suffix.lower() in SUFFIXES:
        raise InputError(f"{path}: is a single image; name the folder that holds the images")
    if path.suffix.lower() in (".npy", ".npz"):
        begins = f"is {kind[0]}" if kind else f"does not begin like a {path.suffix.lower()} file"
        raise InputError(f"{path}: {begins}; write it again with numpy")
    if kind is None:
        raise InputError(f"{path}: is a file of an unknown kind, beginning with bytes {start[:6].hex(' ')}; {EXPECTED}")
    raise InputError(f"{path}: is {kind[0]}; {kind[1]} ({EXPECTED})")
