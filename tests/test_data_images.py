"""Folders of images: a stated rule for every mode, size and orientation, and one line for everything else."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import read_all, refused
from PIL import Image

from jensen.data.check import check
from jensen.data.load import load_data, read_examples
from jensen.data.options import ReadOptions
from jensen.data.readers.image_folder import labels_from_folders
from jensen.errors import InputError


def pixels(*shape: int, seed: int = 0, dtype=np.uint8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def folder_of(tmp_path: Path, **files: Image.Image) -> Path:
    """A folder with one image by its name, such as a_png."""
    for name, image in files.items():
        path = tmp_path / name.replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, lossless=True) if path.suffix == ".webp" else image.save(path)
    return tmp_path


def many(folder: Path, count: int = 12, shape: tuple[int, ...] = (6, 5), prefix: str = "") -> np.ndarray:
    values = pixels(count, *shape)
    folder.mkdir(parents=True, exist_ok=True)
    for number, value in enumerate(values):
        Image.fromarray(value).save(folder / f"{prefix}{number:03d}.png")
    return values


# ---------------------------------------------------------------------------------------------- modes

GREY, COLOUR, ALPHA = pixels(6, 5), pixels(6, 5, 3), pixels(6, 5, 4)
DEEP = pixels(6, 5, dtype=np.uint16)
OVER_WHITE = np.asarray(
    Image.alpha_composite(Image.new("RGBA", (5, 6), "white"), Image.fromarray(ALPHA)).convert("RGB")
)


def luma(colour: np.ndarray) -> np.ndarray:
    """ITU-R 601-2, as Pillow documents it."""
    return (colour.astype(float) @ [0.299, 0.587, 0.114]).round()


@pytest.mark.parametrize(
    ("image", "colour", "expected"),
    [
        (Image.fromarray(GREY), "as-is", GREY[None]),
        (Image.fromarray(GREY), "grey", GREY[None]),
        (Image.fromarray(GREY), "rgb", np.stack([GREY] * 3)),
        (Image.fromarray(GREY), "rgba", np.stack([GREY] * 3 + [np.full_like(GREY, 255)])),
        (Image.fromarray(GREY > 127), "as-is", np.where(GREY > 127, 255, 0)[None]),
        (Image.fromarray(COLOUR), "as-is", np.moveaxis(COLOUR, -1, 0)),
        (Image.fromarray(COLOUR), "grey", luma(COLOUR)[None]),
        (Image.fromarray(ALPHA), "as-is", np.moveaxis(ALPHA, -1, 0)),
        (Image.fromarray(ALPHA), "rgba", np.moveaxis(ALPHA, -1, 0)),
        (Image.fromarray(ALPHA), "rgb", np.moveaxis(OVER_WHITE, -1, 0)),
        (Image.fromarray(ALPHA), "grey", luma(OVER_WHITE)[None]),
        (Image.fromarray(ALPHA[..., :2]), "as-is", np.stack([ALPHA[..., 0]] * 3 + [ALPHA[..., 1]])),
        (Image.fromarray(ALPHA[..., :2]), "rgba", np.stack([ALPHA[..., 0]] * 3 + [ALPHA[..., 1]])),
        (Image.fromarray(DEEP), "as-is", DEEP[None]),
        (Image.fromarray(DEEP), "grey", DEEP[None]),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else value if isinstance(value, str) else "",
)
def test_png_pixels_by_mode_and_colour(tmp_path, image, colour, expected):
    reading = read_all(folder_of(tmp_path, a_png=image), colour=colour)
    assert reading.values.shape == (1, *expected.shape)
    np.testing.assert_allclose(reading.values[0].astype(float), expected, atol=1 if colour == "grey" else 0)
    assert reading.levels == (65536 if image.mode == "I;16" else 256)
    assert reading.values.dtype == (np.uint16 if image.mode == "I;16" else np.uint8)


def palette(transparent: bool) -> Image.Image:
    image = Image.fromarray(pixels(6, 5) % 3, mode="P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    if transparent:
        image.info["transparency"] = 1
    return image


@pytest.mark.parametrize("transparent", [False, True])
def test_a_palette_stands_for_its_colours(tmp_path, transparent):
    buffer = io.BytesIO()
    palette(transparent).save(buffer, "PNG")
    tmp_path.joinpath("a.png").write_bytes(buffer.getvalue())
    values = read_all(tmp_path).values[0]
    index = pixels(6, 5) % 3
    np.testing.assert_array_equal(values[:3], [10 + 30 * index, 20 + 30 * index, 30 + 30 * index])
    assert len(values) == (4 if transparent else 3)
    if transparent:
        np.testing.assert_array_equal(values[3], np.where(index == 1, 0, 255))


def png(width: int, height: int, depth: int, colour_type: int, row: bytes, extra: bytes = b"") -> bytes:
    """A PNG made by hand, for what Pillow does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0))
    body = zlib.compress((b"\0" + row) * height) if height < 1000 else b""
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bit_colour_is_refused_not_cut_to_8_bits(tmp_path, colour_type, channels):
    (tmp_path / "deep.png").write_bytes(png(4, 4, 16, colour_type, bytes(8 * channels)))
    refused(tmp_path, "deep.png: is 16-bit .* which Pillow cuts to 8 bits", colour="rgba")


@pytest.mark.parametrize(
    ("image", "ending", "colour", "says"),
    [
        (Image.fromarray(ALPHA).convert("CMYK"), "jpg", "as-is", "has CMYK pixels; give --colour"),
        (Image.fromarray(DEEP), "png", "rgb", "16-bit grey pixels, which cannot be read as rgb"),
        (Image.fromarray(DEEP), "png", "rgba", "16-bit grey pixels"),
    ],
)
def test_pixels_that_no_rule_covers_are_refused(tmp_path, image, ending, colour, says):
    image.save(tmp_path / f"a.{ending}")
    refused(tmp_path, says, colour=colour)


def test_grey_with_a_transparent_level_counts_as_transparent(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png", transparency=int(GREY[0, 0]))
    expected = [GREY, GREY, GREY, np.where(GREY[0, 0] == GREY, 0, 255)]
    np.testing.assert_array_equal(read_all(tmp_path).values[0], expected)
    values = read_all(tmp_path, colour="grey").values[0, 0]
    np.testing.assert_array_equal(values, np.where(GREY[0, 0] == GREY, 255, GREY))


def test_cmyk_is_converted_when_asked(tmp_path):
    flat = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # red
    flat.save(tmp_path / "a.jpg")
    np.testing.assert_allclose(read_all(tmp_path, colour="rgb").values[0, :, 4, 4].astype(int), [255, 0, 0], atol=3)


@pytest.mark.parametrize(("ending", "tolerance"), [("png", 0), ("webp", 0), ("jpg", 6), ("JPEG", 6)])
def test_every_format_comes_back(tmp_path, ending, tolerance):
    rows, columns = np.mgrid[0:16, 0:24]
    smooth = np.stack([rows * 10, columns * 8, rows * 4 + columns * 4], -1).astype(np.uint8)
    options = {"lossless": True} if ending == "webp" else {"quality": 98, "subsampling": 0} if tolerance else {}
    Image.fromarray(smooth).save(tmp_path / f"a.{ending}", **options)
    values = read_all(tmp_path).values[0]
    np.testing.assert_allclose(values.astype(int), np.moveaxis(smooth, -1, 0), atol=tolerance)


# ---------------------------------------------------------------------------------------------- geometry


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path, orientation):
    """All eight: the upright picture is bright at its top left only."""
    upright = np.zeros((16, 32), np.uint8)
    upright[:8, :16] = 255
    inverse = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(inverse[orientation])
    for ending in ("jpg", "png", "webp"):
        (tmp_path / ending).mkdir()
        Image.fromarray(stored).save(tmp_path / ending / f"a.{ending}", exif=exif)
        values = read_all(tmp_path / ending, colour="grey").values[0, 0]
        assert values.shape == (16, 32)
        assert np.abs(values.astype(int) - upright).mean() < 8


def test_resizing_covers_and_crops_the_centre(tmp_path):
    """A wide image: the shorter side fits, the sides go; away from its edges a ramp stays a ramp."""
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = np.arange(20)[None] * 10  # the centre third is all that is kept
    Image.fromarray(wide).save(tmp_path / "a.png")
    values = read_all(tmp_path, size=(10, 10)).values[0, 0].astype(float)
    np.testing.assert_allclose(values[:, 2:-2], np.tile((np.arange(10) * 20 + 5)[2:-2], (10, 1)), atol=1)


def test_resizing_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "a.png")
    np.testing.assert_allclose(read_all(tmp_path, size=(8, 8)).values.astype(float), 127.5, atol=3)


@pytest.mark.parametrize("size", [(8, 8), (5, 12), (12, 5), (40, 33), (1, 1)])
def test_images_of_all_sizes_become_one_size(tmp_path, size):
    for number, (height, width) in enumerate([(6, 5), (30, 7), (8, 8), (1, 9), (100, 3)]):
        Image.fromarray(np.full((height, width), 77, np.uint8)).save(tmp_path / f"{number}.png")
    values = read_all(tmp_path, size=size).values
    assert values.shape == (5, 1, *size)
    assert (values == 77).all()


def test_16_bit_images_are_resized_in_16_bits(tmp_path):
    Image.fromarray(np.full((9, 9), 40001, np.uint16)).save(tmp_path / "a.png")
    values = read_all(tmp_path, size=(4, 4)).values
    assert (values == 40001).all()


@pytest.mark.parametrize("size", [(0, 4), (4, -1), (4, 10**6)])
def test_a_size_out_of_range_is_refused(tmp_path, size):
    many(tmp_path)
    refused(tmp_path, "height and width must be from 1", size=size)


# ---------------------------------------------------------------------------------------------- folders


def test_the_order_is_that_of_names_and_class_folders_are_labels(tmp_path):
    names = [f"{kind}/{deep}{number}.png" for kind in ("cat", "dog") for deep in ("", "z/") for number in range(6)]
    values = dict(zip(names, pixels(len(names), 4, 4), strict=True))
    random.Random(0).shuffle(names)  # the order of creation, so likely that of the folder
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values[name]).save(tmp_path / name)
    for hidden in (".DS_Store", "cat/._0.png", ".git/x.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"not an image")
    reading = read_all(tmp_path)
    ordered = sorted(names, key=lambda name: name.split("/"))
    np.testing.assert_array_equal(reading.values[:, 0], [values[name] for name in ordered])
    assert reading.label_names == ("cat", "dog")
    assert reading.labels.tolist() == [0] * 12 + [1] * 12
    assert load_data(str(tmp_path)).spec.classes == 2


def test_train_and_test_folders_are_splits(tmp_path):
    for split, count in (("train", 10), ("test", 4)):
        for kind in ("a", "b"):
            many(tmp_path / split / kind, count)
    data = load_data(str(tmp_path))
    assert data.spec.counts == {"train": 18, "validation": 2, "test": 8}
    assert data.spec.label_names == ("a", "b")
    assert data.test.labels.tolist() == [0] * 4 + [1] * 4


def test_paths_give_labels_only_where_all_lie_in_class_folders():
    labels, names, supplied, note = labels_from_folders([("a", "1.png"), ("2.png",)])
    assert (labels, names, supplied) == (None, None, None)
    assert "1 images lie in no class folder" in note
    labels, names, supplied, _ = labels_from_folders([("train", "a", "1.png"), ("train", "b", "2.png")])
    assert (labels.tolist(), names, supplied) == ([0, 1], ("a", "b"), None)  # a lone split is no class
    assert labels_from_folders([("train", "1.png"), ("train", "2.png")])[:3] == (None, None, None)
    labels, names, supplied, _ = labels_from_folders([("train", "1.png"), ("valid", "2.png"), ("test", "3.png")])
    assert labels is None
    assert supplied.tolist() == [0, 1, 2]
    _, names, supplied, _ = labels_from_folders([("train", "1.png"), ("ship", "2.png")])
    assert (names, supplied) == (("ship", "train"), None)


def test_links_are_followed_and_loops_end(tmp_path):
    many(tmp_path / "elsewhere", 12)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "cats").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(folder)
    assert len(read_all(folder).values) == 12


def test_the_fingerprint_is_that_of_the_content(tmp_path):
    many(tmp_path / "one")
    many(tmp_path / "two", prefix="other-")
    one, two = (load_data(str(tmp_path / name)).spec for name in ("one", "two"))
    assert one.fingerprint == two.fingerprint
    Image.fromarray(pixels(6, 5, seed=9)).save(tmp_path / "two" / "other-003.png")
    assert load_data(str(tmp_path / "two")).spec.fingerprint != one.fingerprint


# ---------------------------------------------------------------------------------------------- bad images


def corrupt(folder: Path) -> None:
    whole = (folder / "004.png").read_bytes()
    (folder / "004.png").write_bytes(whole[: len(whole) // 2])


def test_data_under_the_rules_of_a_run_are_not_told_of_flags_that_only_training_has(tmp_path):
    many(tmp_path)
    spec = load_data(str(tmp_path), ReadOptions()).spec
    Image.fromarray(COLOUR).convert("CMYK").save(tmp_path / "004.png", "JPEG")
    with pytest.raises(InputError, match=r"; convert it, or train with --colour grey, rgb or rgba; mend or remove it"):
        read_examples(tmp_path, spec)
    corrupt(tmp_path)
    with pytest.raises(InputError, match=r"; mend or remove it, or train with --skip-bad$"):
        read_examples(tmp_path, spec)


def test_one_corrupt_image_is_named_or_skipped_and_counted(tmp_path):
    values = many(tmp_path)
    corrupt(tmp_path)
    line = refused(tmp_path, "004.png: cannot be decoded .* or give --skip-bad")
    assert line.count("004.png") == 1
    reading = read_all(tmp_path, skip_bad=True)
    np.testing.assert_array_equal(reading.values[:, 0], np.delete(values, 4, axis=0))
    assert load_data(str(tmp_path), ReadOptions(skip_bad=True)).spec.skipped == 1
    report = check(str(tmp_path), ReadOptions(skip_bad=True))
    assert report.good
    assert any("004.png" in note for note in report.notes)


def test_a_check_names_every_bad_image(tmp_path):
    many(tmp_path)
    corrupt(tmp_path)
    (tmp_path / "005.png").write_bytes(b"")
    (tmp_path / "scan.ico").write_bytes(b"beside")
    Image.fromarray(pixels(3, 3)).save(tmp_path / "006.png")
    problems = "\n".join(check(str(tmp_path)).problems)
    for name in ("004.png: cannot", "005.png: cannot", "scan.ico: is text", "006.png: is 3x3"):
        assert name in problems


def test_two_sizes_are_refused_with_the_option_to_name(tmp_path):
    many(tmp_path)
    Image.fromarray(pixels(7, 5)).save(tmp_path / "005.png")
    refused(tmp_path, r"005.png: is 7x5 but .*000.png is 6x5 \(height x width\); give --size 6 5")


def test_8_and_16_bits_are_not_mixed(tmp_path):
    many(tmp_path)
    Image.fromarray(DEEP).save(tmp_path / "005.png")
    refused(tmp_path, "005.png: is 16-bit grey but .*000.png is 8-bit grey; convert it")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    """20,000 x 20,000 pixels are declared and none are there: what decodes it would complain of that instead."""
    many(tmp_path)
    (tmp_path / "bomb.png").write_bytes(png(20000, 20000, 8, 0, b""))
    refused(tmp_path, "bomb.png: is too large to decode safely")
    (tmp_path / "bomb.png").write_bytes(png(10000, 10000, 8, 0, b""))  # where Pillow itself would only warn
    refused(tmp_path, "bomb.png: is too large to decode safely .10000x10000 pixels")
    assert read_all(tmp_path, skip_bad=True).skipped == 1
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 29)
    refused(tmp_path, "000.png: is too large")


def test_moving_pictures_are_refused(tmp_path):
    frames = [Image.fromarray(pixels(6, 5, 3, seed=seed)) for seed in range(3)]
    for ending in ("png", "webp"):
        (tmp_path / ending).mkdir()
        frames[0].save(tmp_path / ending / f"a.{ending}", save_all=True, append_images=frames[1:])
        refused(tmp_path / ending, "has 3 frames")


def test_other_formats_under_an_image_name_are_refused(tmp_path):
    many(tmp_path)
    Image.fromarray(GREY).save(tmp_path / "003.png", format="ICO")
    refused(tmp_path, "003.png: cannot be decoded")
    Image.fromarray(GREY).save(tmp_path / "003.png", format="JPEG")  # readable, whatever it is called
    assert len(read_all(tmp_path).values) == 12


def test_a_folder_of_bad_images_alone_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match="none of its 1 images can be used"):
        read_all(tmp_path, skip_bad=True)


def test_a_file_of_another_kind_among_images(tmp_path):
    many(tmp_path)
    (tmp_path / "labels.csv").write_text("a")
    (tmp_path / "notes").write_text("b")
    reading = read_all(tmp_path)
    assert reading.skipped == 0
    assert "ignored, not images: labels.csv and 1 more" in reading.notes
    Image.fromarray(GREY).save(tmp_path / "scan.ico")
    refused(tmp_path, "scan.ico: is an icon .ICO., not PNG, JPEG, WebP, TIFF, BMP or GIF; mend or remove it, or give")
    assert read_all(tmp_path, skip_bad=True).skipped == 1


@pytest.mark.parametrize("stream", ["never", "always"])
def test_examples_are_named_by_their_files(tmp_path, stream):
    """The named file holds the example, in every split, also where bad files are left out."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        many(tmp_path / label, prefix=label)
    (tmp_path / "cat" / "cat003.png").write_bytes(b"nothing")
    data = load_data(tmp_path, ReadOptions(skip_bad=True, stream=stream))
    seen = []
    for examples in (data.train, data.validation, data.test, data.train[torch.tensor([4, 2])], data.test[1:]):
        for number, name in enumerate(examples.names):
            assert examples.names[number] == name
            np.testing.assert_array_equal(
                np.asarray(Image.open(tmp_path / name)), examples.x[number : number + 1][0, 0]
            )
        seen += list(examples.names)
    assert len(set(seen)) == 23
    assert "dog/dog003.png" in seen
    assert read_examples(tmp_path, data.spec).names[4] == "cat/cat005.png"


@pytest.mark.parametrize("option", [{"layout": "hw"}, {"window": 3}, {"array": "x"}, {"labels": "y"}])
def test_options_of_arrays_are_refused_for_images(tmp_path, option):
    many(tmp_path)
    refused(tmp_path, f"--{next(iter(option))} is for", **option)
