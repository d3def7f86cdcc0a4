"""Signals and volumes: hints about vectors, pictures of examples, masks, and the note about doubtful axes."""

import numpy as np
import pytest
from data_files import byte_images, saved

import jensen
from jensen.data.check import check
from jensen.data.load import load_data
from jensen.data.mask import read_mask
from jensen.data.options import ReadOptions
from jensen.data.pictures import as_pictures
from jensen.data.spec import DataSpec
from jensen.recipe.vae.settings import VAESettings
from jensen.training.settings import TrainingSettings

SMALL = {"model": VAESettings(network="mlp", hidden=(8,), latent_dims=2), "training": TrainingSettings(steps=2)}


def walks(count: int = 200, length: int = 64) -> np.ndarray:
    """Autoregressive signals with a correlation of neighbours of 0.9."""
    source, x = np.random.default_rng(0), np.zeros((count, length))
    noise = source.normal(size=(count, length))
    x[:, 0] = noise[:, 0]
    for place in range(1, length):
        x[:, place] = 0.9 * x[:, place - 1] + 0.19**0.5 * noise[:, place]
    return x.astype(np.float32)


def images(channels: int, side: int = 12) -> np.ndarray:
    """Smooth random images (200, side, side, channels): white noise after a triangular blur of both axes."""
    noise = np.random.default_rng(0).normal(size=(200, side + 2, side + 2, channels))
    blurred = noise[:, :-2] + 2 * noise[:, 1:-1] + noise[:, 2:]
    return (blurred[:, :, :-2] + 2 * blurred[:, :, 1:-1] + blurred[:, :, 2:]).astype(np.float32)


def doubts(values: np.ndarray, **options) -> str:
    return "\n".join(load_data(values, ReadOptions(**options)).spec.doubts)


def test_signals_given_as_vectors_are_noted():
    x = walks()
    assert float(doubts(x).split("correlated (")[1].split(";")[0]) == pytest.approx(0.9, abs=0.02)
    assert "signals? Then give --layout signal" in doubts(x)
    assert "signals?" not in doubts(x, layout="vector")
    assert "signals?" not in doubts(x, layout="signal")
    assert "signals?" not in doubts(x[:, np.random.default_rng(1).permutation(64)])
    common = x[:, :1] + 0.1 * np.random.default_rng(2).normal(size=x.shape)  # all columns are correlated
    assert "signals?" not in doubts(common.astype(np.float32))


@pytest.mark.parametrize(
    ("channels", "first", "shape"),
    [(1, True, "12, 12"), (3, False, "12, 12, 3"), (3, True, "3, 12, 12"), (4, False, "12, 12, 4")],
)
def test_flattened_images_are_noted_with_their_shape(channels, first, shape):
    x = images(channels)
    x = np.moveaxis(x, -1, 1) if first else x
    assert f"flattened images? Then reshape them to (N, {shape})" in doubts(x.reshape(200, -1))


def test_constant_and_missing_columns_are_left_out():
    x = walks()
    x[:, ::9] = 1
    x[::3, 5] = np.nan
    assert "signals?" in doubts(x, missing=True)
    assert "signals?" not in doubts(np.ones((200, 64), np.float32))


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((12, 12, 5), "images: height, width, channels, so 5 channels of 12 x 12, for networks of 2 dimensions"),
        ((12, 12, 5), "For other axes give --layout chw or --layout volume"),
        ((6, 6, 6), "volumes: depth, height, width, so 1 channel of 6 x 6 x 6, for networks of 3 dimensions, or mlp"),
        ((6, 6, 6), "For other axes give --layout chw or --layout hwc"),
        ((3, 60), "signals: channels, length, so 3 channels of 60, for networks of 1 dimension, or mlp"),
        ((5, 25), "For other axes give --layout signal"),
        ((2, 3, 4, 5), "arrays, neither vectors nor images. For other axes give --layout cdhw or --layout dhwc"),
    ],
)
def test_a_doubtful_choice_of_axes_is_one_note(shape, says):
    x = byte_images(40, shape=shape)
    assert sum(says in note for note in check(x).notes) == 1
    assert says in doubts(x)


def test_training_warns_of_a_doubtful_choice_of_axes(tmp_path):
    x = byte_images(40, shape=(6, 6, 6))
    with pytest.warns(UserWarning, match="are read as") as caught:
        jensen.train(jensen.VAERecipe(data=x, **SMALL), tmp_path / "run")
    assert sum("give --layout chw or --layout hwc" in str(warning.message) for warning in caught) == 1


@pytest.mark.parametrize("shape", [(5, 4), (3, 6, 6), (1, 6, 6, 6), (1, 200)])
def test_a_clear_choice_of_axes_is_no_doubt(shape):
    assert not load_data(byte_images(40, shape=shape)).spec.doubts


def test_a_given_layout_is_no_doubt():
    for layout in ("hwc", "chw", "volume"):
        assert not load_data(byte_images(40, shape=(12, 12, 5)), ReadOptions(layout=layout)).spec.doubts


# ---------------------------------------------------------------------------------------------- pictures


def test_the_picture_of_a_volume_is_its_middle_slice():
    volumes = byte_images(5, shape=(3, 7, 4, 6))
    np.testing.assert_array_equal(as_pictures(volumes, "volume"), volumes[:, :, 3])


def heights(picture: np.ndarray) -> np.ndarray:
    """The highest and the lowest ink of every column of a curve, in rows from the bottom."""
    ink = picture == 0
    return np.stack([len(picture) - 1 - ink.argmax(0), ink[::-1].argmax(0)])


@pytest.mark.parametrize("length", [1, 2, 30, 256, 257, 1000])
def test_the_curve_of_a_signal_goes_through_its_numbers(length):
    signal = np.round(127.5 * (1 + np.sin(np.arange(length) / 40))).astype(np.uint8)
    (picture,) = as_pictures(signal[None, None], "signal")[0]
    assert picture.shape == (64, min(max(length, 64), 256))
    high, low = heights(picture)
    width = len(high)
    place = (np.arange(width) + 0.5) * (length - 1) / width
    true = np.interp(place, np.arange(length), signal) / 255 * 63
    assert (low - 2 <= true).all()
    assert (true <= high + 2).all()
    assert (high[1:] >= low[:-1] - 1).all()  # no gaps
    assert (low[1:] <= high[:-1] + 1).all()


def test_a_curve_has_no_gap_at_a_step():
    steps = np.where(np.arange(1024) // 128 % 2, 255, 0).astype(np.uint8)
    high, low = heights(as_pictures(steps[None, None], "signal")[0, 0])
    assert (high[:-1] >= low[1:] - 1).all()
    assert (low[:-1] <= high[1:] + 1).all()


def test_a_spike_shorter_than_a_pixel_is_seen():
    signal = np.full((1, 1, 5000), 100, np.uint8)
    signal[0, 0, 1234] = 255
    assert heights(as_pictures(signal, "signal")[0, 0])[0].max() == 63


def test_every_channel_has_a_curve_of_its_own():
    levels = np.array([0, 128, 255], np.uint8)
    (picture,) = as_pictures(np.broadcast_to(levels[None, :, None], (1, 3, 80)).copy(), "signal")[0]
    rows = [np.flatnonzero((part == 0).any(1)).tolist() for part in np.split(picture, 3)]
    assert rows == [[20], [10], [0]]


# ---------------------------------------------------------------------------------------------- masks


def spec(shape: tuple[int, ...], layout: str) -> DataSpec:
    return load_data(byte_images(30, shape=shape), ReadOptions(layout=layout)).spec


@pytest.mark.parametrize(
    ("mask", "hidden"),
    [
        ("half:left", np.s_[:, :, :, :4]),
        ("half:bottom", np.s_[:, :, 3:]),
        ("half:front", np.s_[:, :2]),
        ("half:back", np.s_[:, 2:]),
        ("centre", np.s_[:, 1:3, 1:4, 2:6]),
    ],
)
def test_masks_of_volumes(mask, hidden):
    expected = np.ones((2, 4, 6, 8), bool)
    expected[hidden] = False
    found = read_mask(mask, spec((2, 4, 6, 8), "cdhw"), 30, [0, 3])
    np.testing.assert_array_equal(found, np.stack([expected] * 2))


@pytest.mark.parametrize(
    ("shape", "layout", "mask", "known"),
    [
        ((3, 40), "cl", "half:bottom", "half:left, half:right, centre, random:0.5, or an .npy"),
        ((3, 5, 6), "chw", "half:back", "half:top, half:bottom, centre, random:0.5, a PNG of the size"),
        ((2, 4, 6, 8), "cdhw", "middle", "half:bottom, half:front, half:back, centre, random:0.5, or an .npy"),
        ((7,), "auto", "centre", "MASK is half:left, half:right, random:0.5, or an .npy"),
    ],
)
def test_a_refused_mask_names_those_that_suit_the_examples(shape, layout, mask, known):
    with pytest.raises(jensen.InputError, match=rf"^--mask {mask}: n.*{known}"):
        read_mask(mask, spec(shape, layout), 30, [0])


@pytest.mark.parametrize(("shape", "layout"), [((3, 40), "cl"), ((3, 5, 6), "chw"), ((2, 4, 6, 8), "cdhw")])
def test_masks_hide_all_channels_of_a_place(shape, layout):
    about = spec(shape, layout)
    found = read_mask("random:0.5", about, 30, [0, 3])
    assert (found == found[:, :1]).all()
    assert 0.2 < found.mean() < 0.8
    plain = np.arange(np.prod(shape[1:])).reshape(shape[1:]) % 3 > 0
    np.testing.assert_array_equal(read_mask(plain, about, 30, [1])[0], np.broadcast_to(plain, shape))


def test_the_centre_of_a_signal():
    (found,) = read_mask("centre", spec((2, 40), "cl"), 30, [0])
    assert np.flatnonzero(~found[0]).tolist() == list(range(10, 30))


# ---------------------------------------------------------------------------------------------- runs


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 6, 6, 6), "volume"),
        ((2, 40), "signal"),
        pytest.param((6, 6, 6), "volume", marks=pytest.mark.slow),
        pytest.param((8, 8, 5), "hwc", marks=pytest.mark.slow),
    ],
)
def test_runs_write_pictures_of_every_layout(tmp_path, shape, layout):
    """Sample grids in training, samples, reconstructions, imputations and the report."""
    source = saved(tmp_path / "x.npz", x=byte_images(40, shape=shape))
    recipe = jensen.VAERecipe(data=str(source), read=ReadOptions(layout=layout), **SMALL)
    run = jensen.train(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "samples" / "step-00000002.png").is_file()
    assert jensen.sample(run, 3).x.shape[1:] == run.spec.shape
    jensen.sample(run, 3).save(tmp_path / "s.png")
    jensen.reconstruct(run).save(tmp_path / "r.png")
    few = jensen.ImputationWish(samples=20, sweeps=2)
    jensen.impute(run, mask="half:left", draws=2, wish=few).save(tmp_path / "i")
    assert (tmp_path / "i" / "imputations.png").is_file()
    page = jensen.evaluate(run, settings=jensen.EvaluationSettings(draws=2, samples=2)).save(tmp_path / "e")
    assert (page.parent / "pictures" / "samples.png").is_file()
    if layout != "hwc":
        with pytest.raises(jensen.InputError, match="image files cannot hold a"):
            jensen.sample(run, 3).save(tmp_path / "folder")
