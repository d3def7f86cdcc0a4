"""Pictures as people have them: TIFF pages, animations, mixed modes, archives, metadata; written by other programs."""

import csv
import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from data_files import byte_images, read_all, refused
from PIL import Image

from jensen.data.check import check
from jensen.data.load import load_data, read_examples
from jensen.data.options import ReadOptions

COUNT = 12
GREY, COLOUR, ALPHA = (byte_images(COUNT, shape=(6, 5, *channels)) for channels in ((), (3,), (4,)))


def folder_of(folder: Path, images: np.ndarray, ending: str = "png", **options) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number:03d}.{ending}", **options)
    return folder


def notes(source: Path, **options) -> str:
    report = check(source, ReadOptions(**options))
    assert report.good, report.problems
    return "\n".join(report.notes)


def same(source: Path, expected: np.ndarray, **options) -> None:
    """Reading gives the expected values bit for bit, in memory and from disk."""
    for stream in ("never", "always"):
        values = read_all(source, stream=stream, **options).values
        assert (values.shape, values.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(values[:], expected)
        rows = np.array([len(expected) - 1, 0, 3])
        np.testing.assert_array_equal(values[rows], expected[rows])


# ---------------------------------------------------------------------------------------------- TIFF, BMP, GIF


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_every_page_of_a_tiff_is_an_example(tmp_path, dtype, byteorder):
    pages = (100 * np.random.default_rng(0).normal(size=(COUNT, 6, 5))).astype(dtype)
    tifffile.imwrite(tmp_path / "stack.tif", pages, photometric="minisblack", byteorder=byteorder)
    expected = pages[:, None].astype(np.float32 if dtype == np.int16 else dtype)
    same(tmp_path / "stack.tif", expected)
    same(tmp_path, expected)
    reading = read_all(tmp_path)
    assert reading.levels == {np.uint8: 256, np.uint16: 65536}.get(dtype)
    assert reading.names(7) == "stack.tif page 7"
    assert "every page is an example; files with several pages: 1, such as stack.tif with 12" in notes(tmp_path)


@pytest.mark.parametrize("compression", ["zlib", None])
def test_tiff_files_of_one_page_in_class_folders(tmp_path, compression):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number, image in enumerate(COLOUR):
            tifffile.imwrite(tmp_path / label / f"{number:03d}.tiff", image, photometric="rgb", compression=compression)
    same(tmp_path, np.concatenate([np.moveaxis(COLOUR, -1, 1)] * 2))
    assert read_all(tmp_path).label_names == ("a", "b")
    refused(tmp_path / "a" / "000.tiff", "is a single image; name the folder")


@pytest.mark.parametrize(
    ("values", "options", "says"),
    [
        (COLOUR[0].astype(np.uint16) * 257, {"photometric": "rgb"}, "has 16-bit RGB, which Pillow cuts to fewer bits"),
        (GREY[0].astype(np.uint32), {}, "has 32-bit integers, which Pillow cuts"),
        (GREY[0].astype(np.float64), {}, "of a kind that Pillow does not read"),
        (GREY[0].astype(np.int8), {}, "has signed integers of 8 bits, whose sign Pillow drops"),
        (
            byte_images(1, shape=(6, 5, 7))[0],
            {"photometric": "minisblack", "planarconfig": "contig"},
            "of a kind that Pillow does not read",
        ),
        (np.full((6, 5), np.nan, np.float32), {}, "is the first of the images with NaN or infinite values, 30 in all"),
    ],
)
def test_what_pillow_would_change_is_refused_with_the_code_that_converts_it(tmp_path, values, options, says):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    line = refused(tmp_path, says)
    if "NaN" not in says:
        assert "import numpy, tifffile; numpy.savez('data.npz', x=tifffile.imread('FILE'))" in line


def test_bmp_and_gif(tmp_path):
    same(folder_of(tmp_path / "bmp", COLOUR, "bmp"), np.moveaxis(COLOUR, -1, 1))
    same(folder_of(tmp_path / "gif", GREY, "gif"), np.stack([GREY] * 3, 1))  # a palette of 30 greys
    frames = [Image.fromarray(image) for image in GREY]
    frames[3].save(tmp_path / "gif" / "003.gif", save_all=True, append_images=frames)
    same(tmp_path / "gif", np.stack([GREY] * 3, 1))
    assert "the first frame of an animation is the example; animated GIF files: 1, such as 003.gif" in notes(
        tmp_path / "gif"
    )


def test_levels_of_pixels_of_12_bits(tmp_path):
    pages = byte_images(COUNT).astype(np.uint16) * 16
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack")
    assert "give --levels 4096" in notes(tmp_path)
    spec = load_data(tmp_path, ReadOptions(levels=4096)).spec
    assert (spec.levels, spec.dtype) == (4096, "uint16")
    refused(tmp_path, "--levels 4000: pixels of 16 bits go up to 4080; give a number of levels from 4081", levels=4000)
    refused(tmp_path, "--levels 70000: pixels of 16 bits", levels=70000)


def test_resizing_floats_keeps_floats(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((COUNT, 9, 9), -1.25, np.float32), photometric="minisblack")
    values = read_all(tmp_path, size=(4, 4)).values
    assert (values.shape, values.dtype) == ((COUNT, 1, 4, 4), np.float32)
    np.testing.assert_allclose(values, -1.25, rtol=1e-6)


# ---------------------------------------------------------------------------------------------- mixed modes


def test_images_of_several_modes_are_read_with_the_channels_of_all(tmp_path):
    """Whatever the order: expected values are by Pillow's own conversions, which are lossless here."""
    palette = Image.fromarray(COLOUR[2]).quantize(8)
    images = {
        "bilevel": Image.fromarray(GREY[0] > 99),
        "grey": Image.fromarray(GREY[1]),
        "palette": palette,
        "rgb": Image.fromarray(COLOUR[3]),
        "grey-alpha": Image.fromarray(ALPHA[4][..., :2]),
        "rgba": Image.fromarray(ALPHA[5]),
    }
    for modes, common in (
        ("bilevel grey palette", "RGB"),
        ("grey rgb", "RGB"),
        ("grey-alpha", "RGBA"),
        (" ".join(images), "RGBA"),
    ):
        for turn, order in enumerate((modes.split(), modes.split()[::-1])):
            folder = tmp_path / f"{modes} {turn}"
            folder.mkdir()
            for number, name in enumerate(order):
                images[name].save(folder / f"{number}-{name}.png")
            expected = np.stack([np.moveaxis(np.asarray(images[name].convert(common)), -1, 0) for name in order])
            for stream in ("never", "always"):
                reading = read_all(folder, stream=stream)
                np.testing.assert_array_equal(reading.values[:], expected)
                assert (reading.survey.minimum, reading.survey.maximum) == (expected.min(), expected.max())
    assert "all images are read as 8-bit RGBA, which loses nothing" in reading.notes[-1]


def test_other_images_of_fewer_modes_fit_a_run(tmp_path):
    folder_of(tmp_path / "run", GREY)
    Image.fromarray(COLOUR[0]).save(tmp_path / "run" / "z.png")
    spec = load_data(tmp_path / "run").spec
    assert spec.shape == (3, 6, 5)
    folder_of(tmp_path / "grey", GREY)
    np.testing.assert_array_equal(read_examples(tmp_path / "grey", spec).x.numpy(), np.stack([GREY] * 3, 1))


# ---------------------------------------------------------------------------------------------- archives


def class_folders(folder: Path) -> np.ndarray:
    for number, label in enumerate(("cat", "dog")):
        folder_of(folder / label, COLOUR + np.uint8(number))
    return np.moveaxis(np.concatenate([COLOUR, COLOUR + np.uint8(1)]), -1, 1)


@pytest.mark.parametrize("how", ["zip -qr {out}.zip pets", "tar -cf {out}.tar pets", "tar -czf {out}.tar.gz pets"])
@pytest.mark.parametrize("wrapped", [True, False])
def test_archives_are_read_as_folders(tmp_path, how, wrapped):
    expected = class_folders(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "pets" / "notes.txt").write_text("x")
    how = how.format(out=tmp_path / "pets")
    if not wrapped:
        how = how.replace(" pets", " .")
    if not shutil.which(how.split()[0]):
        pytest.skip("no such program")
    subprocess.run(how, shell=True, check=True, cwd=tmp_path if wrapped else tmp_path / "pets")
    [archive] = [path for path in tmp_path.iterdir() if path.is_file()]
    for stream in ("never", "always"):
        if archive.suffix == ".gz" and stream == "always":
            refused(archive, "is compressed, so single examples cannot be read; unpack it to a .tar", stream=stream)
            continue
        reading = read_all(archive, stream=stream)
        np.testing.assert_array_equal(reading.values[:], expected)
        assert reading.label_names == ("cat", "dog")
        assert reading.labels.tolist() == [0] * COUNT + [1] * COUNT
        assert reading.names(13).endswith("dog/001.png")
        assert any("notes.txt" in note for note in reading.notes)
    spec, unpacked = load_data(archive).spec, load_data(tmp_path / "pets").spec
    assert spec.fingerprint == unpacked.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["pets", archive.name])


def test_members_that_lead_elsewhere_are_no_files(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number, image in enumerate(GREY):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            info = tarfile.TarInfo(f"../../{number:02d}.png")
            info.size = len(content.getvalue())
            archive.addfile(info, io.BytesIO(content.getvalue()))
        for kind, target in (
            (tarfile.SYMTYPE, "/etc/passwd"),
            (tarfile.LNKTYPE, "../../00.png"),
            (tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo("z.png")
            info.type, info.linkname = kind, target
            archive.addfile(info)
    before = sorted(tmp_path.parent.rglob("*"))
    same(tmp_path / "a.tar", GREY[:, None])
    assert sorted(tmp_path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bad_picture_in_an_archive_is_named_or_skipped(tmp_path, kind):
    folder_of(tmp_path / "a", GREY)
    (tmp_path / "a" / "004.png").write_bytes((tmp_path / "a" / "004.png").read_bytes()[:50])
    archive = Path(shutil.make_archive(str(tmp_path / "x"), kind, tmp_path / "a"))
    refused(archive, rf"x.{kind}: (./)?004.png: cannot be decoded .*; mend or remove it, or give --skip-bad")
    np.testing.assert_array_equal(read_all(archive, skip_bad=True).values[:, 0], np.delete(GREY, 4, 0))
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    refused(archive, f"x.{kind}: ")


def test_zip_archives_that_are_damaged_encrypted_or_bombs(tmp_path):
    folder_of(tmp_path / "a", GREY)
    archive = Path(shutil.make_archive(str(tmp_path / "x"), "zip", tmp_path / "a"))
    with zipfile.ZipFile(archive) as file:
        place = file.getinfo("003.png").header_offset
    content = bytearray(archive.read_bytes())
    content[place + 60] ^= 1
    archive.write_bytes(content)
    refused(archive, "x.zip: 003.png: cannot be unpacked .Bad CRC-32")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.bmp", bytes(1 << 20))
        file.filelist[0].file_size = 1 << 45
    refused(tmp_path / "bomb.zip", "a.bmp: would take 262,144.0 GiB unpacked")


def test_packed_archives_larger_than_memory_are_refused(tmp_path, monkeypatch):
    folder_of(tmp_path / "a", GREY)
    archives = [shutil.make_archive(str(tmp_path / "x"), kind, tmp_path / "a") for kind in ("zip", "gztar", "tar")]
    monkeypatch.setattr("os.sysconf", lambda name: 1)
    refused(archives[0], "x.zip: 000.png: would take 0.0 GiB unpacked")
    refused(archives[1], "x.tar.gz: would take 0.0 GiB unpacked")
    assert len(read_all(archives[2]).values) == COUNT


def webdataset(path: Path, images: np.ndarray, first: int = 0) -> None:
    with tarfile.open(path, "w") as archive:
        for number, image in enumerate(images, first):
            content = io.BytesIO()
            Image.fromarray(image).save(content, "PNG")
            beside = {
                "png": content.getvalue(),
                "cls": str(number % 3).encode(),
                "json": json.dumps({"id": number}).encode(),
            }
            for ending, body in beside.items():
                info = tarfile.TarInfo(f"{number:06d}.{ending}")
                info.size = len(body)
                archive.addfile(info, io.BytesIO(body))


def test_shards_of_a_webdataset_with_labels_and_splits(tmp_path):
    webdataset(tmp_path / "train-000.tar", GREY[:6])
    webdataset(tmp_path / "train-001.tar", GREY[6:9], 6)
    webdataset(tmp_path / "test-000.tar", GREY[9:], 9)
    reading = read_all(tmp_path)
    np.testing.assert_array_equal(reading.values[:, 0], GREY[[9, 10, 11, 0, 1, 2, 3, 4, 5, 6, 7, 8]])
    assert reading.labels.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2]
    assert reading.supplied.tolist() == [2] * 3 + [0] * 9
    assert reading.names(3) == "train-000.tar/000000.png"
    assert any("labels are 'cls' of the .cls and .json files; left out: 'id'" in note for note in reading.notes)
    (tmp_path / "train-001.tar").rename(tmp_path / "more.tar")
    refused(tmp_path, "more.tar: its name gives no split, and the names of other archives do")


# ---------------------------------------------------------------------------------------------- imagefolder


def test_a_lone_split_folder_is_no_class(tmp_path):
    for label in ("cat", "dog"):
        folder_of(tmp_path / "train" / label, GREY)
    spec = load_data(tmp_path).spec
    assert spec.label_names == ("cat", "dog")
    assert spec.counts == {"train": 20, "validation": 2, "test": 2}
    assert "splits are drawn from the folder train, which is no class" in notes(tmp_path)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.parametrize("words", [True, False])
def test_metadata_gives_labels(tmp_path, kind, words):
    labels = {}
    for split, count in (("train", COUNT), ("valid", 4)):
        folder = folder_of(tmp_path / split, GREY[:count])
        rows = [
            {"file_name": f"{n:03d}.png", "label": f"k{n % 3}" if words else n % 3, "caption": "a, b"}
            for n in range(count)
        ]
        labels |= {f"{split}/{row['file_name']}": row["label"] for row in rows}
        with (folder / f"metadata.{kind}").open("w", newline="") as file:
            if kind == "csv":
                writer = csv.DictWriter(file, rows[0])
                writer.writeheader()
                writer.writerows(rows[::-1])
            else:
                file.writelines(json.dumps(row) + "\n" for row in rows)
    reading = read_all(tmp_path)
    names = reading.label_names or (0, 1, 2)
    assert {reading.names(row): names[label] for row, label in enumerate(reading.labels)} == labels
    assert reading.supplied.tolist() == [0] * COUNT + [1] * 4
    assert f"labels are 'label' of metadata.{kind}; left out: 'caption'" in notes(tmp_path)
    if not words:
        read_all(tmp_path, labels="caption")


def test_metadata_of_targets_and_of_other_columns(tmp_path):
    folder_of(tmp_path, GREY)
    rows = "".join(f"{number:03d}.png,{number / 8},x\n" for number in range(COUNT))
    (tmp_path / "metadata.csv").write_text("file_name,age,word\n" + rows)
    assert "metadata.csv has no column named label; --labels may be 'age', 'word'" in notes(tmp_path)
    np.testing.assert_array_equal(read_all(tmp_path, labels="age").targets[:, 0], np.arange(COUNT) / 8)
    refused(tmp_path, "metadata.csv: has no column 'z'; --labels may be 'age', 'word'", labels="z")
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + rows)
    refused(tmp_path, "metadata.csv: row 2 has more or fewer cells than the header")
    (tmp_path / "metadata.csv").write_text("file_name,label,word\n" + rows + "lost.png,1,x\n")
    refused(tmp_path, "metadata.csv: names lost.png, which is not among the images")
    (tmp_path / "metadata.csv").write_text("file_name,label,word\n" + rows.split("\n", 1)[1])
    refused(tmp_path, "000.png: has no 'label' in metadata.csv, as 1 of 12 images")
    (tmp_path / "metadata.csv").write_text("name,label,word\n" + rows)
    refused(tmp_path, "has a row without file_name")
    (tmp_path / "metadata.csv").write_bytes(b"\xff\xfe\0\0")
    refused(tmp_path, "metadata.csv: is not a sound CSV file")
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.jsonl").write_text("[1]\n")
    refused(tmp_path, "metadata.jsonl: line 1: is not a JSON object")


def test_two_kinds_in_one_folder_and_files_that_are_read_alone(tmp_path):
    folder_of(tmp_path / "a", GREY)
    (tmp_path / "a" / "x.wav").write_bytes(b"")
    refused(tmp_path / "a", "holds both images .000.png. and WAV files .x.wav.; name a folder with one of them")
    (tmp_path / "b").mkdir()
    np.savez(tmp_path / "b" / "x.npz", x=GREY)
    refused(tmp_path / "b", "holds x.npz, and files of this kind are read one at a time; name the file itself")
