"""The choice of the reader for DATA: by the first bytes and the name of a file, by the file names in a folder."""

import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from jensen.data.options import DEFAULTS, ReadOptions
from jensen.data.readers import csv_file, dicom, fits, hdf5, matlab, nifti, parquet, wav
from jensen.data.readers.columns import FILE_MAGIC
from jensen.data.readers.digits import read_digits
from jensen.data.readers.entries import PACKED, entries_of_folder, entries_of_tars, entries_of_zip
from jensen.data.readers.idx import is_idx_name, is_idx_start, read_idx_file, read_idx_folder
from jensen.data.readers.image import SUFFIXES, frames
from jensen.data.readers.image_folder import no_images, read_images
from jensen.data.readers.kinds import ENOUGH, TEXT, identify
from jensen.data.readers.memory import MEMORY, Source, cells_in_memory, read_arrays
from jensen.data.readers.numpy_files import npz_cells, read_npy, read_npy_file, read_npz_file
from jensen.data.readers.reading import SPLITS, Kind, Reading, Refuse
from jensen.data.readers.tables import Cells, matrix_cells, text_cells_of
from jensen.data.readers.tiles import tiled
from jensen.errors import InputError

DIGITS = "digits"
EXPECTED = (
    "DATA is 'digits', a CSV file, an IDX file or folder, a .npy, .npz, HDF5 or MATLAB file, a folder of images, of "
    "Parquet, Arrow, WAV, NIfTI, DICOM or FITS files, or a zip or tar archive of images"
)

_WORDS: dict[Kind, str] = {
    "digits": "digits",
    "idx": "IDX",
    "array": "a single array (.npy)",
    "arrays": "named arrays (.npz)",
    "array in memory": "a single array in memory",
    "arrays in memory": "a dict of arrays",
    "images": "images",
    "table": "a table",
    "list table": "a table of lists of numbers",
    "image table": "a table of images",
    "wav": "WAV",
    "nifti": "NIfTI",
    "dicom": "DICOM",
    "fits": "FITS",
    "hdf5": "HDF5",
    "matlab": "MATLAB",
    "csv": "CSV",
}

IMAGE_KINDS: tuple[Kind, ...] = ("images", "image table")
_FILES: tuple[Kind, ...] = ("wav", "nifti", "dicom", "fits")
_NAMED: tuple[Kind, ...] = ("arrays", "arrays in memory", "list table", "image table", "hdf5", "matlab")
_IN_MEMORY: tuple[Kind, ...] = ("array in memory", "arrays in memory")
_ARRAYS: tuple[Kind, ...] = ("array", "arrays", *_IN_MEMORY, "list table", "hdf5", "matlab", "csv")

_HEEDED_BY: dict[str, tuple[Kind, ...]] = {
    "size": IMAGE_KINDS,
    "tile": ("idx", *_ARRAYS, *IMAGE_KINDS),
    "colour": IMAGE_KINDS,
    "skip_bad": (*IMAGE_KINDS, *_FILES),
    "layout": ("idx", *_ARRAYS, *_FILES, "table"),
    "levels": ("idx", *_ARRAYS, *_FILES, *IMAGE_KINDS),
    "array": (*_NAMED, "fits"),
    "labels": (*_NAMED, "csv", "table", "images"),
    "columns": ("table",),
    "window": ("wav",),
    "hop": ("wav",),
    "missing": (*_ARRAYS, *_FILES),
    "stream": ("idx", "array", "arrays", "table", "list table", "hdf5", *IMAGE_KINDS, *_FILES),
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


def read_cells(source: Source, header: bool | None = None, options: ReadOptions = DEFAULTS) -> Cells:
    """The cells of a source that is a table. Raises InputError if it is none; for `header` see `read_text`."""
    if not isinstance(source, str | Path):
        return cells_in_memory(source)
    path = Path(source)
    if not path.exists():
        raise InputError(f"{source}: no such file or folder; {EXPECTED}")
    try:
        start = b"" if path.is_dir() else _start(path)
        shards = (
            [one for one in visible_files(path) if one.name.lower().endswith(parquet.SUFFIXES)] if not start else []
        )
        if shards or start.startswith((b"PAR1", FILE_MAGIC)):
            return parquet.cells_of_shards(path, shards or [path], options)
        if start.startswith(b"PK"):
            return npz_cells(path)
        if start.startswith(b"\x93NUMPY"):
            return matrix_cells(str(path), read_npy(path))
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror or error}); check it") from error
    if not start or (b"\0" in start and not start.startswith((b"\xff\xfe", b"\xfe\xff"))):
        raise InputError(f"{source}: is not a table, but the run was trained on one; give a CSV or Parquet file")
    return text_cells_of(path, options, header)


def check_options(reading: Reading, options: ReadOptions, refuse: Refuse) -> None:
    """Refuses every option that has no effect on the data."""
    given = {name for name in type(options).model_fields if getattr(options, name) != getattr(DEFAULTS, name)}
    for name, kinds in _HEEDED_BY.items():
        if name in given and reading.kind not in kinds:
            *first, last = (_WORDS[kind] for kind in kinds)
            known = f"{', '.join(first)} and {last}" if first else last
            refuse(f"{_flag(name)} is for {known} but DATA is {_WORDS[reading.kind]}; leave it out")
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
    drawn = any(fraction for split, fraction in fractions.items() if split not in supplied)
    for name in ("split_seed", "group"):
        if name in given and not drawn:
            refuse(f"{_flag(name)} {getattr(options, name)}: no split is drawn from these data; leave it out")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def visible_files(folder: Path) -> list[Path]:
    """The files below `folder` in the order of their relative names; links are followed, hidden files left out."""
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
    named_idx = [path for path in paths if path.parent == folder and is_idx_name(path)]
    found = {form.words: [path for path in paths if form.has_name_of(path)] for form in FORMATS if form.of_folders}
    found = {words: chosen for words, chosen in found.items() if chosen}
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise InputError(
            f"{folder}: holds both {one} ({first[0].name}) and {other} ({second[0].name}); name a folder with one of "
            "them"
        )
    if named_idx and not found.keys() - {IMAGES}:
        return read_idx_folder(named_idx, options, refuse)
    if not found:
        return _read_unnamed(folder, paths, options, refuse)
    (words, chosen), *_ = found.items()
    form = next(form for form in FORMATS if form.words == words)
    reading = form.read(folder, paths if words == IMAGES else chosen, options, refuse)
    others = sorted(set(paths) - set(chosen))
    if words in (IMAGES, TABLES) or not others:
        return reading
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return replace(reading, notes=(*reading.notes, f"ignored, not {words}: {others[0].name}{more}"))


def _read_unnamed(folder: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """The files of a folder whose names have no known ending: DICOM, which often has none, or else an error."""
    with_dicom = [path for path in paths if not path.suffix and _start(path)[128:132] == b"DICM"]
    if with_dicom:
        return dicom.read_dicom(folder, with_dicom, options, refuse)
    single = [path for path in paths if path.name.lower().endswith(SINGLE)]
    if single:
        raise InputError(
            f"{folder}: holds {single[0].relative_to(folder)}, and files of this kind are read one at a time; name the "
            "file itself"
        )
    raise no_images(str(folder), entries_of_folder(folder, paths), EXPECTED)


def _read_file(path: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    start = _start(path)
    for form in (
        *(form for form in FORMATS if form.begins(start)),
        *(form for form in FORMATS if form.has_name_of(path)),
    ):
        return form.read(path, [path], options, refuse)
    kind = identify(start)
    unpacked = _unpacked_start(path, start)
    if unpacked is not None and unpacked[257:262] == b"ustar":
        return _read_tars(path, [path], options, refuse)
    inside = identify(unpacked) if unpacked else None
    if inside is not None and not is_idx_name(path):
        raise InputError(f"{path}: is {kind[0] if kind else 'an archive'} of {inside[0].removeprefix('a ')}; unpack it")
    if is_idx_name(path) or is_idx_start(start) or (kind is None and start.startswith(b"\0\0")):
        return read_idx_file(path, options, refuse)
    if path.suffix.lower() in (".npy", ".npz"):
        begins = f"is {kind[0]}" if kind else f"does not begin like a {path.suffix.lower()} file"
        raise InputError(f"{path}: {begins}; write it again with numpy")
    if kind is not None and kind[0] == TEXT:
        return csv_file.read_csv(path, options, refuse)
    if kind is None:
        raise InputError(f"{path}: is a file of an unknown kind, beginning with bytes {start[:6].hex(' ')}; {EXPECTED}")
    advice = kind[1].replace("'FILE'", repr(str(path)))
    raise InputError(f"{path}: is {kind[0]}; {advice} ({EXPECTED})")


def _start(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(ENOUGH)


def _unpacked_start(path: Path, start: bytes) -> bytes | None:
    """The first bytes of the content of a compressed file; None for other or damaged files."""
    opener = next((opener for magic, opener in PACKED.items() if start.startswith(magic)), None)
    if opener is None:
        return None
    try:
        with opener(path) as stream:
            return stream.read(ENOUGH)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return None


# ---------------------------------------------------------------------------------------------- the table


def _read_image_files(source: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    if source.is_dir():
        return read_images(str(source), entries_of_folder(source, paths), options, refuse)
    with source.open("rb") as stream:
        pages, _ = frames(stream)
    if pages == 1:
        raise InputError(f"{source}: is a single image; name the folder that holds the images")
    return read_images(str(source), entries_of_folder(source.parent, paths), options, refuse)


def _read_zip(source: Path, options: ReadOptions, refuse: Refuse) -> Reading:
    """An .npz, or a zip archive of images. Raises InputError for other zip archives."""
    entries = entries_of_zip(source) if zipfile.is_zipfile(source) else []
    images = any(entry.suffix in SUFFIXES for entry in entries)
    if images and not any(entry.suffix == ".npy" for entry in entries):
        return read_images(str(source), entries, options, refuse)
    return read_npz_file(source, options, refuse)


def _read_tars(source: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    return read_images(str(source), entries_of_tars(source, paths, options), options, refuse)


def _alone(read: Callable[[Path, ReadOptions, Refuse], Reading]) -> "Read":
    """The reader of a format whose files are read one at a time."""
    return lambda source, paths, options, refuse: read(source, options, refuse)


Read = Callable[[Path, list[Path], ReadOptions, Refuse], Reading]


@dataclass(frozen=True)
class Format:
    """A format: the names by which its files are recognised in a folder, their first bytes, and its reader."""

    words: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...]
    """Positions, and the bytes there, of which one is enough."""
    read: Read
    """The reader of the source, a file or a folder, and of the files in it that have such a name."""
    of_folders: bool = True

    def has_name_of(self, path: Path) -> bool:
        """Whether the name of a file has one of the endings."""
        return path.name.lower().endswith(self.suffixes)

    def begins(self, start: bytes) -> bool:
        """Whether a file with the first bytes `start` has this format."""
        return any(start[place : place + len(magic)] == magic for place, magic in self.magic)


IMAGES, TABLES = "images", "Parquet or Arrow files"
SINGLE = (".npy", ".npz", ".h5", ".hdf5", ".mat", ".csv", ".tsv", ".zip")

_TIFF = tuple((0, start) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))
_HDF5 = ((0, hdf5.MAGIC), (512, hdf5.MAGIC))
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

FORMATS: tuple[Format, ...] = (
    Format(IMAGES, SUFFIXES, _TIFF, _read_image_files),
    Format(TABLES, parquet.SUFFIXES, ((0, b"PAR1"), (0, FILE_MAGIC)), parquet.read_table),
    Format("WAV files", wav.SUFFIXES, ((8, b"WAVE"), (0, b"RF64")), wav.read_wav),
    Format("NIfTI files", nifti.SUFFIXES, ((344, b"n+1\0"), (4, b"n+2\0")), nifti.read_nifti),
    Format("DICOM files", dicom.SUFFIXES, ((128, b"DICM"),), dicom.read_dicom),
    Format("FITS files", fits.SUFFIXES, ((0, b"SIMPLE  ="),), fits.read_fits),
    Format("tar archives", _TARS, ((257, b"ustar"),), _read_tars),
    Format("zip archives", (".zip",), ((0, b"PK\3\4"), (0, b"PK\5\6")), _alone(_read_zip), of_folders=False),
    Format("MATLAB files", (".mat",), ((0, b"MATLAB"),), _alone(matlab.read_matlab), of_folders=False),
    Format("HDF5 files", (".h5", ".hdf5"), _HDF5, _alone(hdf5.read_hdf5), of_folders=False),
    Format("NumPy arrays", (), ((0, b"\x93NUMPY"),), _alone(read_npy_file), of_folders=False),
    Format("CSV files", (".csv", ".tsv"), (), _alone(csv_file.read_csv), of_folders=False),
)
"""Every format but IDX and digits. The first bytes of a file decide, then its name."""
