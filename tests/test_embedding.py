"""The embedding of noise level and label, and the folding of patches."""

import pytest
import torch
import torch.nn.functional as F

from jensen.errors import InputError
from jensen.nets.embedding import ConditionEmbedding, geometric_frequencies, sinusoids
from jensen.nets.patches import Patches, fold_patches, unfold_patches


def test_frequencies_are_a_geometric_series_between_their_ends():
    frequencies = geometric_frequencies(10, 0.5, 8.0).double()
    torch.testing.assert_close(frequencies, torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5]).double())


@pytest.mark.parametrize("width", [0, 1, 7])
def test_a_width_that_does_not_split_into_cosines_and_sines_is_refused(width):
    with pytest.raises(InputError, match=f"width {width}"):
        geometric_frequencies(width, 0.5, 8.0)


def test_sinusoids_know_positions_by_their_differences_alone():
    """<e(p), e(q)> = sum_f cos f (p - q): the same under any shift, and half the width at p = q."""
    frequencies = geometric_frequencies(16, 0.25, 16.0).double()
    p = torch.linspace(-3, 3, 13, dtype=torch.float64)
    products = sinusoids(p, frequencies) @ sinusoids(p, frequencies).T
    shifted = sinusoids(p + 1.7, frequencies) @ sinusoids(p + 1.7, frequencies).T
    torch.testing.assert_close(products, shifted)
    torch.testing.assert_close(products.diagonal(), torch.full((13,), 8.0).double())
    assert (products - products.diag().diag()).max() < 7.9  # no two of these levels look the same


def test_no_label_is_the_last_label():
    embedding = ConditionEmbedding(8, 12, classes=3)
    level = torch.tensor([-1.0, 0.5])
    torch.testing.assert_close(embedding(level), embedding(level, torch.tensor([3, 3])), rtol=0, atol=0)
    assert not torch.allclose(embedding(level), embedding(level, torch.tensor([0, 1])))


def test_labels_without_classes_are_refused():
    with pytest.raises(InputError, match="without classes"):
        ConditionEmbedding(8, 12)(torch.zeros(2), torch.tensor([0, 1]))


def test_patches_are_those_of_pixel_unshuffle():
    x = torch.randn(2, 3, 8, 12)
    folded = fold_patches(x, (4, 4))
    torch.testing.assert_close(folded, F.pixel_unshuffle(x, 4), rtol=0, atol=0)
    torch.testing.assert_close(unfold_patches(folded, (4, 4), (8, 12)), x, rtol=0, atol=0)


def test_patches_of_a_volume_are_those_of_its_slices_and_of_its_columns():
    x = torch.randn(2, 3, 4, 6, 8)
    folded = fold_patches(x, (2, 2, 4))
    slices = fold_patches(x.flatten(1, 2), (2, 4)).view(2, 3, 4, 8, 3, 2)  # (batch, C, D, pixels, rows, columns)
    columns = slices.view(2, 3, 2, 2, 8, 3, 2).permute(0, 1, 3, 4, 2, 5, 6).flatten(1, 3)
    torch.testing.assert_close(folded, columns, rtol=0, atol=0)


@pytest.mark.parametrize(
    "shape", [(3, 17, 23), (1, 1, 13), (2, 13, 1), (1, 1, 1), (2, 19), (1, 1), (2, 3, 8, 5), (1, 1, 7, 4)]
)
@pytest.mark.parametrize("patch", [1, 2, 3, 5])
def test_any_size_comes_back_from_patches_exactly(shape, patch):
    x = torch.randn(2, *shape)
    patches = Patches(shape, patch)
    folded = patches.fold(x)
    assert folded.shape[2:] == patches.grid
    assert folded.shape[1] == patches.folded
    torch.testing.assert_close(patches.unfold(folded, x.shape[2:]), x, rtol=0, atol=0)


def test_what_folds_twice_the_channels_unfolds_into_halves():
    """A network of two outputs keeps them in the first and the second half of the channels."""
    patches = Patches((3, 7, 6), 2)
    mean, variance = torch.randn(2, 2, 3, 7, 6).unbind()
    both = torch.cat([patches.fold(mean), patches.fold(variance)], dim=1)
    torch.testing.assert_close(patches.unfold(both, mean.shape[2:]), torch.cat([mean, variance], dim=1), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(5,), (1, 2, 3, 4, 5)])
def test_shapes_without_one_to_three_axes_are_refused(shape):
    with pytest.raises(InputError, match="MLP"):
        Patches(shape, 2)


def test_other_channels_are_refused():
    with pytest.raises(InputError, match="got 1 channels, expected 3"):
        Patches((3, 8, 8), 2).fold(torch.zeros(2, 1, 8, 8))
