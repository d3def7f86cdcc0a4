"""Files of signals, volumes and tables, written by the libraries of each format: every value, name and refusal."""

import csv
import gzip
import re
import wave
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import scipy.io
import scipy.io.wavfile
import soundfile
from astropy.io import fits
from data_files import byte_images, read_all, refused
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from jensen.data.check import check
from jensen.data.load import load_data
from jensen.data.options import ReadOptions
from jensen.data.readers import library
from jensen.data.stored import AbstractRows

COUNT = 12


def floats(*shape: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def integers(*shape: int, low: int = -1000, high: int = 1000, dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(1).integers(low, high, shape, dtype)


def same(source: Path, expected: np.ndarray, **options) -> None:
    """Reading gives the expected values bit for bit, in memory and from disk, which also have one fingerprint."""
    fingerprints = set()
    for stream in ("never", "always"):
        reading = read_all(source, stream=stream, **options)
        fingerprints.add(reading.survey.fingerprint())
        values = reading.values
        assert isinstance(values, AbstractRows) == (stream == "always")
        assert values.shape == expected.shape
        assert values.dtype == expected.dtype
        np.testing.assert_array_equal(values[:], expected)
        rows = np.array([len(expected) - 1, 0, len(expected) // 2, 0])
        np.testing.assert_array_equal(values[rows], expected[rows])
    assert len(fingerprints) == 1


# ---------------------------------------------------------------------------------------------- WAV


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_samples_are_those_of_soundfile(tmp_path, subtype, channels):
    signal = np.clip(floats(COUNT * 10, channels, dtype=np.float64) / 4, -1, 1 - 2**-20)
    soundfile.write(tmp_path / "a.wav", signal, 8000, subtype)
    samples, _ = soundfile.read(tmp_path / "a.wav", always_2d=True)
    expected = samples.reshape(COUNT, 10, channels).transpose(0, 2, 1)
    same(
        tmp_path / "a.wav",
        expected.astype(np.float32 if subtype in ("PCM_U8", "PCM_16", "FLOAT") else float),
        window=10,
    )


def test_windows_of_many_wav_files_with_labels_and_names(tmp_path):
    recordings = {}
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number, length in enumerate((47, 30, 5)):
            recordings[f"{label}/{number}.wav"] = signal = integers(length) + len(recordings)
            with wave.open(str(tmp_path / label / f"{number}.wav"), "wb") as file:
                file.setparams((1, 2, 4000, 0, "NONE", ""))
                file.writeframes(signal.astype("<i2").tobytes())
    line = refused(tmp_path, "2.wav: has 5 samples; expected at least 10", window=10, hop=5)
    assert line.endswith("give --skip-bad")
    data = load_data(tmp_path, ReadOptions(window=10, hop=5, skip_bad=True))
    assert data.spec.skipped == 2
    assert data.spec.label_names == ("cat", "dog")
    assert len(data.train) + len(data.validation) + len(data.test) == 2 * (8 + 5)
    for number, name in enumerate(data.train.names):
        file, _, first, _, last = name.split()
        expected = recordings[file][int(first) : int(last) + 1] / np.float32(32768)
        np.testing.assert_array_equal(data.train.x[number, 0], expected.astype(np.float32))
        assert data.spec.label_names[data.train.labels[number]] == file.split("/")[0]
    report = check(tmp_path, ReadOptions(window=10, hop=5, skip_bad=True))
    assert any("windows of 10 samples every 5" in note for note in report.notes)
    doubt = "windows of 10 samples every 5 overlap.*the bound is too good; give --group file, or --hop 10"
    assert [bool(re.search(doubt, line)) for line in data.spec.doubts] == [True]
    for options in ({"hop": 10}, {"hop": 5, "group": "file"}):
        assert not load_data(tmp_path, ReadOptions(window=10, skip_bad=True, **options)).spec.doubts
    one = load_data(tmp_path / "cat/0.wav", ReadOptions(window=10, hop=1))
    assert one.spec.doubts[0].endswith("good; give --hop 10")


def test_wav_files_without_windows_must_have_one_length_rate_and_number_of_channels(tmp_path):
    for number in range(COUNT):
        scipy.io.wavfile.write(tmp_path / f"{number:02d}.wav", 8000, integers(50) + number)
    reading = read_all(tmp_path)
    assert (reading.values.shape, reading.layout) == ((COUNT, 1, 50), "signal")
    assert load_data(tmp_path).train.names[0].endswith(".wav")
    scipy.io.wavfile.write(tmp_path / "z.wav", 8000, integers(60))
    refused(tmp_path, "z.wav: has examples of shape .1, 60. .* one shape: give --window SAMPLES")
    scipy.io.wavfile.write(tmp_path / "z.wav", 16000, integers(50))
    refused(tmp_path, "z.wav: has 16000 Hz and 1 channels but .*00.wav has 8000 Hz and 1; resample it")
    scipy.io.wavfile.write(tmp_path / "z.wav", 8000, integers(50, 2))
    refused(tmp_path, "z.wav: has 8000 Hz and 2 channels but")
    refused(tmp_path, "--hop 5 is the distance between windows; give --window", hop=5)
    refused(tmp_path, "--window 0: must be at least 1 sample", window=0)


def test_a_wav_file_that_ends_early_or_is_compressed_is_refused(tmp_path):
    for subtype in ("PCM_16", "PCM_24", "FLOAT"):
        path = tmp_path / f"{subtype}.wav"
        soundfile.write(path, floats(500) / 9, 8000, subtype)
        path.write_bytes(path.read_bytes()[:-90])
        refused(path, f"{subtype}.wav: ", window=10)
    soundfile.write(tmp_path / "u.wav", floats(500) / 9, 8000, "ULAW")
    refused(tmp_path / "u.wav", "u.wav: cannot be read .Unknown wave file format: MULAW", window=10)


# ---------------------------------------------------------------------------------------------- volumes and scans


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_nifti_volumes_are_those_of_nibabel(tmp_path, ending, dtype):
    volumes = [(40 * floats(6, 5, 4, seed=seed)).astype(dtype) for seed in range(COUNT)]
    for number, volume in enumerate(volumes):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{number:02d}.{ending}")
    kept = np.float32 if dtype == np.int16 else dtype
    same(tmp_path, np.stack(volumes)[:, None].astype(kept))
    assert read_all(tmp_path).layout == "volume"
    assert read_all(tmp_path).names(3) == f"03.{ending}"


@pytest.mark.parametrize("ending", ["nii", "nii.gz"])
def test_a_nifti_series_is_a_volume_for_each_time_scaled_as_the_file_says(tmp_path, ending):
    image = nibabel.Nifti1Image(integers(6, 5, 4, COUNT), np.eye(4))
    image.header.set_slope_inter(0.5, 10)
    nibabel.save(image, tmp_path / f"bold.{ending}")
    expected = nibabel.load(tmp_path / f"bold.{ending}").get_fdata()
    assert expected.std() > 100
    same(tmp_path / f"bold.{ending}", np.moveaxis(expected, -1, 0)[:, None])
    assert read_all(tmp_path / f"bold.{ending}").names(3) == f"bold.{ending} volume 3"


def scan(path: Path, pixels: np.ndarray, **fields) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    for name, value in fields.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(path, enforce_file_format=True)


def test_dicom_images_and_frames_with_and_without_endings(tmp_path):
    images = integers(COUNT, 6, 4, low=0, dtype=np.uint16)
    for number, image in enumerate(images):
        scan(tmp_path / f"{number:02d}.dcm", image)
    same(tmp_path, images[:, None])
    for path in sorted(tmp_path.iterdir()):
        path.rename(path.with_suffix(""))
    same(tmp_path, images[:, None])
    frames = byte_images(COUNT)
    scan(tmp_path / "movie.dcm", frames)
    same(tmp_path / "movie.dcm", frames[:, None])
    assert read_all(tmp_path / "movie.dcm").names(5) == "movie.dcm frame 5"


def test_packed_dicom_and_files_without_an_image(tmp_path):
    images = integers(COUNT, 6, 4, low=0, dtype=np.uint16)
    for number, image in enumerate(images):
        scan(tmp_path / f"{number:02d}.dcm", image)
        dataset = pydicom.dcmread(tmp_path / f"{number:02d}.dcm")
        dataset.compress(pydicom.uid.RLELossless)
        dataset.save_as(tmp_path / f"{number:02d}.dcm")
    same(tmp_path, images[:, None])
    del dataset.PixelData
    dataset.save_as(tmp_path / "report.dcm")
    refused(tmp_path, "report.dcm: holds no image; leave it out; mend or remove it, or give --skip-bad")
    assert read_all(tmp_path, skip_bad=True).skipped == 1


def test_dicom_values_are_rescaled_and_colour_keeps_its_channels(tmp_path):
    for number, image in enumerate(integers(COUNT, 6, 4)):
        scan(tmp_path / f"{number:02d}.dcm", image, RescaleSlope=2, RescaleIntercept=-1024)
    same(tmp_path, 2.0 * integers(COUNT, 6, 4)[:, None] - 1024)
    assert any("rescaled as the files state" in note for note in check(tmp_path).notes)
    (tmp_path / "colour").mkdir()
    colours = byte_images(COUNT, shape=(6, 5, 3))
    for number, image in enumerate(colours):
        scan(tmp_path / "colour" / f"{number:02d}.dcm", image)
    same(tmp_path / "colour", np.moveaxis(colours, -1, 1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32, np.float64])
def test_fits_cubes_and_folders_of_images(tmp_path, dtype):
    cube = np.abs(400 * floats(COUNT, 6, 5)).astype(dtype)
    fits.PrimaryHDU(cube).writeto(tmp_path / "cube.fits")
    kept = {np.int16: np.float32, np.int32: np.float64}.get(dtype, dtype)
    same(tmp_path / "cube.fits", cube[:, None].astype(kept))
    assert read_all(tmp_path / "cube.fits").names(2) == "cube.fits plane 2"
    (tmp_path / "cube.fits").unlink()
    for number, image in enumerate(cube):
        fits.PrimaryHDU(image).writeto(tmp_path / f"{number:02d}.fits")
    same(tmp_path, cube[:, None].astype(kept))


def test_scaled_fits_values_are_those_of_astropy(tmp_path):
    hdu = fits.PrimaryHDU(byte_images(COUNT, shape=(6, 5)))
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 100.0
    hdu.writeto(tmp_path / "a.fits")
    scaled = fits.getdata(tmp_path / "a.fits")
    assert scaled.min() >= 100
    same(tmp_path / "a.fits", scaled[:, None])


def test_packed_files_larger_than_memory_are_refused(tmp_path, monkeypatch):
    values = floats(COUNT, 6, 5)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii.gz")
    fits.PrimaryHDU(values).writeto(tmp_path / "a.fits.gz")
    scipy.io.savemat(tmp_path / "a.mat", {"x": values}, do_compression=True)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=values, compression="gzip")
    scan(tmp_path / "a.dcm", byte_images(COUNT))
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    for name in ("a.nii.gz", "a.fits.gz", "a.mat", "a.h5", "a.dcm"):
        refused(tmp_path / name, "would take 0.0 GiB unpacked, and this machine's memory")


def test_the_extension_of_a_fits_file(tmp_path):
    one, other = floats(COUNT, 6, 5), floats(COUNT, 6, 5, seed=3)
    layers = [
        fits.PrimaryHDU(),
        fits.ImageHDU(one, name="SCI"),
        fits.CompImageHDU(other, None, "ERR", "GZIP_1", quantize_level=0),
    ]
    fits.HDUList(layers).writeto(tmp_path / "a.fits")
    same(tmp_path / "a.fits", one[:, None])
    same(tmp_path / "a.fits", other[:, None], array="ERR")
    refused(tmp_path / "a.fits", "has no image 'DQ'; --array may be 'SCI', 'ERR'", array="DQ")
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress((tmp_path / "a.fits").read_bytes()))
    same(tmp_path / "a.fits.gz", one[:, None])
    fits.BinTableHDU.from_columns([fits.Column("a", "E", array=one[:, 0, 0])]).writeto(tmp_path / "t.fits")
    refused(tmp_path / "t.fits", "holds no image, only 'PRIMARY'")


# ---------------------------------------------------------------------------------------------- named arrays


@pytest.mark.parametrize("how", [{}, {"chunks": (5, 6, 4), "compression": "gzip"}])
def test_hdf5_datasets_are_chosen_as_the_arrays_of_an_npz(tmp_path, how):
    images = byte_images(COUNT, shape=(6, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("train/images", data=images, **how)
        file["other"] = floats(COUNT, 3)
        file["kind"] = np.array(["cat", "dog"] * (COUNT // 2), dtype=object)
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "x")
    refused(tmp_path / "a.h5", "which array holds the examples. give --array as one of 'kind', 'other', 'train/images'")
    same(tmp_path / "a.h5", images[:, None], array="train/images", labels="kind")
    same(tmp_path / "a.h5", floats(COUNT, 3), array="other")
    data = load_data(tmp_path / "a.h5", ReadOptions(array="train/images", labels="kind"))
    assert data.spec.label_names == ("cat", "dog")
    assert data.train.names[0].startswith("row ")


def test_hdf5_splits_by_name_and_values_in_other_files(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for split, count in (("train", COUNT), ("test", 6)):
            file[f"x_{split}"], file[f"y_{split}"] = floats(count, 3), np.arange(count) % 3
    spec = load_data(tmp_path / "a.h5").spec
    assert (spec.counts["test"], spec.classes) == (6, 3)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("x", (COUNT, 4), "u1", external=[("/etc/passwd", 0, COUNT * 4)])
    refused(tmp_path / "b.h5", "b.h5: x: has its values in other files")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("x", (1 << 40, 32), "u1", chunks=(1 << 10, 32))
    for stream in ("auto", "always"):
        refused(tmp_path / "c.h5", "c.h5: x: would take 32,768.0 GiB", stream=stream)


@pytest.mark.parametrize("version", ["4", "5"])
def test_matlab_arrays(tmp_path, version):
    images, labels = byte_images(COUNT, shape=(6, 4)), np.arange(COUNT)[:, None] % 3
    x = images if version == "5" else images.reshape(COUNT, -1)
    scipy.io.savemat(
        tmp_path / "a.mat", {"x": x, "y": labels.astype(np.uint8)}, format=version, do_compression=version == "5"
    )
    reading = read_all(tmp_path / "a.mat")
    np.testing.assert_array_equal(reading.values, images[:, None] if version == "5" else x)
    assert reading.labels.tolist() == labels.ravel().tolist()
    refused(tmp_path / "a.mat", "--stream is for", stream="always")


def test_matlab_images_with_examples_last(tmp_path):
    images = byte_images(COUNT, shape=(6, 4, 3))
    for name, y in (("a.mat", np.arange(COUNT)[:, None] % 3), ("b.mat", np.arange(COUNT)[None] % 3)):
        scipy.io.savemat(tmp_path / name, {"X": np.moveaxis(images, 0, -1), "y": y})
        np.testing.assert_array_equal(read_all(tmp_path / name).values, np.moveaxis(images, -1, 1))
        assert any("last axis is that of the examples" in note for note in check(tmp_path / name).notes)


def test_matlab_7_3_arrays_have_their_axes_back(tmp_path):
    images = byte_images(COUNT, shape=(6, 4, 3))
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        for name, values, kind in (("x", images, "uint8"), ("y", np.arange(COUNT)[:, None] % 3, "double")):
            file.create_dataset(name, data=values.T.astype("u1" if name == "x" else float)).attrs["MATLAB_class"] = (
                np.bytes_(kind)
            )
        file.create_group("#refs#")["a"] = np.zeros(3)
    with (tmp_path / "a.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    reading = read_all(tmp_path / "a.mat")
    np.testing.assert_array_equal(reading.values, np.moveaxis(images, -1, 1))
    assert reading.labels.tolist() == (np.arange(COUNT) % 3).tolist()


# ---------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", ["a,b,c", ""])
def test_csv_of_numbers(tmp_path, delimiter, header):
    values = floats(COUNT, 3, dtype=np.float64)
    header = header.replace(",", delimiter)
    np.savetxt(tmp_path / "a.csv", values, "%.17g", delimiter, header=header, comments="")
    reading = read_all(tmp_path / "a.csv", layout="vector")
    np.testing.assert_array_equal(reading.values, values)
    assert reading.values.dtype == np.float64
    assert reading.names(4) == ("row 6" if header else "row 5")  # as a spreadsheet counts
    assert any(note.startswith("the first row holds cells and no names") for note in reading.notes) == (not header)


def test_csv_of_pixels_with_labels(tmp_path):
    images = byte_images(COUNT, shape=(12,))
    for name, labels in (("label", np.arange(COUNT) % 3), ("kind", [f"k{row % 2}" for row in range(COUNT)])):
        with (tmp_path / "a.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([name, *range(12)])
            writer.writerows([label, *row] for label, row in zip(labels, images.tolist(), strict=True))
        reading = read_all(tmp_path / "a.csv", layout="vector", **({"labels": "kind"} if name == "kind" else {}))
        np.testing.assert_array_equal(reading.values, images)
        assert (reading.values.dtype, reading.levels) == (np.uint8, 256)
        assert reading.label_names == (None if name == "label" else ("k0", "k1"))
    refused(tmp_path / "a.csv", "has no column 'z'; --labels may be 'kind', '0'", labels="z", layout="vector")


def test_csv_as_pandas_writes_it_with_text_and_gaps(tmp_path):
    pandas = pytest.importorskip("pandas")
    values = floats(COUNT, 3, dtype=np.float64)
    table = pandas.DataFrame(values, columns=["a", "b", "target"])
    table["name"] = [f"n{row}" for row in range(COUNT)]
    table.loc[3, "b"] = np.nan
    table.to_csv(tmp_path / "a.csv")
    refused(tmp_path / "a.csv", "1 of its 24 values are NaN", layout="vector")
    reading = read_all(tmp_path / "a.csv", missing=True, layout="vector")
    np.testing.assert_array_equal(reading.values, table[["a", "b"]].to_numpy())
    np.testing.assert_array_equal(reading.targets[:, 0], values[:, 2])
    assert "y is column 'target'; left out: 'column 1', 'name'" in reading.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3\n", "row 3 has 1 cell but there are 2 columns"),
        ("a,b\n1,2\n3,x\n4,5\n", "holds numbers|left out: 'b'"),
        ("a\nb\nc\n", "is text without a column of numbers"),
        ("", "is an empty file"),
        ("a,b\n", "holds one row, the names of columns"),
        ('{"a": 1}', "is text .JSON."),
        ("label,a\n,1\n2,3\n", "column 'label' has empty cells"),
    ],
)
def test_csv_that_is_no_matrix_is_refused(tmp_path, text, says):
    (tmp_path / "a.txt").write_text(text)
    if "left out" in says:
        assert "left out: 'b'" in read_all(tmp_path / "a.txt", layout="vector").notes[0]
    else:
        refused(tmp_path / "a.txt", says, layout="vector")


def test_a_late_word_in_a_column_of_numbers_is_named(tmp_path):
    rows = ["1.5,2.5"] * 10_000
    for late, says in (
        ("1.5,oops", "row 9001, column 'column 2': holds 'oops', but the other cells are numbers"),
        ("1.5", "row 9001 has 1 cell but there are 2 columns"),
        ('1.5,"2,5"', "row 9001, column 'column 2': holds '2,5', but the other cells are numbers"),
    ):
        rows[9_000] = late
        (tmp_path / "a.csv").write_text("\n".join(rows))
        refused(tmp_path / "a.csv", says, layout="vector")
    rows[9_000] = '"3.5",'
    (tmp_path / "a.csv").write_text("\n".join(rows))
    values = read_all(tmp_path / "a.csv", missing=True, layout="vector").values
    assert (len(values), values[9_000, 0], values[-1, 1]) == (10_000, 3.5, 2.5)
    assert np.isnan(values[9_000, 1])


# ---------------------------------------------------------------------------------------------- groups


@pytest.mark.parametrize("kind", ["wav", "h5", "mat", "csv"])
def test_groups_stay_in_one_split(tmp_path, kind):
    """Ten groups of six examples: windows of a recording, or rows with the same patient."""
    values, patients = floats(60, 3, dtype=np.float64), np.arange(60) // 6
    source, options = tmp_path / f"a.{kind}", {"group": "patient"}
    if kind == "wav":
        source, options = tmp_path, {"group": "file", "window": 10}
        for patient in range(10):
            scipy.io.wavfile.write(tmp_path / f"{patient}.wav", 8000, integers(60) + patient)
    elif kind == "h5":
        with h5py.File(source, "w") as file:
            file["x"], file["patient"] = values, patients
    elif kind == "mat":
        scipy.io.savemat(source, {"x": values, "patient": patients[:, None]})
    else:
        table = np.column_stack([patients, values])
        np.savetxt(source, table, ["%d", *["%.17g"] * 3], ",", header="patient,a,b,c", comments="")
    data = load_data(source, ReadOptions(**options))
    first = 2 if kind == "csv" else 0
    assert len(data.train.x) == 48
    splits = [
        {name.split()[0] if kind == "wav" else patients[int(name.split()[1]) - first] for name in split.names}
        for split in (data.train, data.validation, data.test)
    ]
    assert [len(split) for split in splits] == [8, 1, 1]
    assert len(set.union(*splits)) == 10


# ---------------------------------------------------------------------------------------------- what is missing


def test_a_missing_library_is_named_with_two_ways_out(tmp_path, monkeypatch):
    def absent(name: str) -> None:
        raise ImportError(name)

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = floats(COUNT, 3)
    monkeypatch.setattr(library, "import_module", absent)
    line = refused(tmp_path / "a.h5", "is an HDF5 file, which the package h5py reads, and it is not installed")
    assert "pip install 'jensen[formats]'" in line
    code = line.split("installed: ")[1].replace("FILE", str(tmp_path / "a.h5")).replace("NAME", "x")
    code = code.replace("data.npz", str(tmp_path / "data.npz"))
    monkeypatch.undo()
    exec(code)
    np.testing.assert_array_equal(read_all(tmp_path / "data.npz").values, floats(COUNT, 3))
