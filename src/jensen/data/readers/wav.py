"""WAV files: signals (channels, length) in windows, as floats in [-1, 1) of the full scale."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_files import Content, Form, read_array_files
from jensen.data.readers.reading import Reading, Refuse, RowName
from jensen.data.stored import AbstractRows, FileRows, OpenFile, Values
from jensen.errors import InputError

SUFFIXES = (".wav", ".wave")


def read_wav(source: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """Windows of `--window` samples every `--hop` samples; without `--window` each file is one example."""
    window, hop = options.window, options.hop or options.window
    if options.hop is not None and window is None:
        raise InputError(f"--hop {options.hop} is the distance between windows; give --window, or leave it out")
    for name, length in (("window", window), ("hop", hop)):
        if length is not None and length < 1:
            raise InputError(f"--{name} {length}: must be at least 1 sample")
    seen: list[tuple[Path, int, int]] = []

    def load(path: Path) -> Content:
        rate, signal = _signal(path)
        channels = signal.shape[1]
        if len(signal) < (window or 1):
            raise InputError(f"{path}: has {len(signal)} samples; expected at least {window or 1}")
        if not seen:
            seen.append((path, rate, channels))
        first, *expected = seen[0]
        if [rate, channels] != expected:
            raise InputError(
                f"{path}: has {rate} Hz and {channels} channels but {first} has {expected[0]} Hz and {expected[1]}; "
                "resample it, or give a folder for each"
            )
        length = window or len(signal)
        note = f"signals of {rate} Hz and {channels} channel{'s' * (channels > 1)}, in units of full scale, -1 to 1"
        if window is not None:
            note += f"; windows of {length} samples every {hop}, without the samples after the last whole window"
        return Content(Windows(signal, length, hop or length), _names(length, hop) if window else _no_name, (note,))

    form = Form("wav", load, "cl", "give --window SAMPLES")
    reading = read_array_files(form, source, paths, options, refuse)
    if window is None or hop is None or hop >= window or options.group is not None:
        return reading
    advice = f"give --hop {window}" if reading.file is None else f"give --group file, or --hop {window}"
    doubt = (
        f"windows of {window} samples every {hop} overlap, so examples of different splits share samples and the bound "
        f"is too good; {advice}"
    )
    return replace(reading, doubts=(*reading.doubts, doubt))


def _no_name(row: int) -> str:
    return ""


def _names(length: int, hop: int | None) -> RowName:
    def name(row: int) -> str:
        start = row * (hop or length)
        return f"samples {start} to {start + length - 1}"

    return name


class Windows(AbstractRows):
    """Windows (N, channels, length) of a signal (samples, channels), as floats."""

    def __init__(self, signal: Values, length: int, hop: int) -> None:
        self._signal, self._hop = signal, hop
        self.shape = (1 + (len(signal) - length) // hop, signal.shape[1], length)
        self.dtype = _floats(np.empty(0, signal.dtype)).dtype

    def take(self, rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for place, start in enumerate((rows * self._hop).tolist()):
            found[place] = _floats(self._signal[start : start + self.shape[2]]).T
        return found


def _signal(path: Path) -> tuple[int, Values]:
    """The rate in Hz and the samples (samples, channels) of a file, which stay in the file if their place is known."""
    from scipy.io import wavfile

    try:
        rate, samples = wavfile.read(path, mmap=True)
    except ValueError as error:
        if "mmap=True not compatible" not in str(error):
            raise
        rate, samples = wavfile.read(path)  # 24 bits; at the end of a damaged file, the samples are fewer
        if 3 * samples.size < _declared(path):
            raise InputError(f"{path}: ends before its last sample; fetch it again") from error
    shape = (len(samples), 1 if samples.ndim == 1 else samples.shape[1])
    if isinstance(samples, np.memmap):
        return rate, FileRows(OpenFile(path), samples.offset, shape, samples.dtype)
    return rate, samples.reshape(shape)


def _declared(path: Path) -> int:
    """The length of the samples in bytes by the header of a RIFF file."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                return int(size)
            file.seek(size + size % 2, 1)
    return 0


def _floats(samples: np.ndarray) -> np.ndarray:
    """Integers divided by full scale, which floats hold exactly: 8 and 16 bits as float32, more as float64."""
    kind, size = samples.dtype.kind, samples.dtype.itemsize
    if kind == "f":
        return samples.astype(np.dtype(f"f{size}"), copy=False)
    if kind == "u":  # 8 bits, the only unsigned samples of WAV
        return (samples.astype(np.float32) - 128) / 128
    scaled = samples.astype(np.float64) / (1 << (8 * size - 1))
    return scaled.astype(np.float32 if size <= 2 else np.float64)
