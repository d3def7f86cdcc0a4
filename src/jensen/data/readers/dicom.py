"""DICOM images by pydicom: the stored values after the rescaling that the file states, and without any window."""

from pathlib import Path

import numpy as np

from jensen.data.options import ReadOptions
from jensen.data.readers.array_files import Content, Form, measured, read_array_files
from jensen.data.readers.library import library
from jensen.data.readers.reading import Reading, Refuse, refuse_bomb
from jensen.errors import InputError

SUFFIXES = (".dcm", ".dicom", ".ima")
PYTHON = "import numpy, pydicom; numpy.savez('data.npz', x=pydicom.dcmread('FILE').pixel_array[None])"


def read_dicom(source: Path, paths: list[Path], options: ReadOptions, refuse: Refuse) -> Reading:
    """Images (H, W) or (H, W, 3); every frame of a file is an example."""
    return read_array_files(Form("dicom", _load), source, paths, options, refuse)


def _load(path: Path) -> Content:
    pydicom = library("pydicom", path, "a DICOM file", PYTHON)
    pixels = library("pydicom.pixels", path, "a DICOM file", PYTHON)
    dataset = pydicom.dcmread(path)
    if "PixelData" not in dataset and "FloatPixelData" not in dataset and "DoubleFloatPixelData" not in dataset:
        raise InputError(f"{path}: holds no image; leave it out")
    count = int(dataset.get("NumberOfFrames") or 1)
    bits, samples = int(dataset.BitsAllocated), int(dataset.SamplesPerPixel)
    refuse_bomb(str(path), count * int(dataset.Rows) * int(dataset.Columns) * samples * max(1, bits // 8))
    stored = dataset.pixel_array
    values = measured(np.asarray(pixels.apply_modality_lut(stored, dataset)))
    notes = []
    if dataset.get("RescaleSlope") is not None:
        notes.append(f"values are rescaled as the files state, {dataset.get('RescaleType') or 'unit not stated'}")
    if dataset.get("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("MONOCHROME1: low values are bright; they are not inverted")
    return Content(values, _name, tuple(notes)) if count > 1 else Content(values[None], notes=tuple(notes))


def _name(row: int) -> str:
    return f"frame {row}"
