"""Figures of small images: what is where in them."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.figure import Figure

from guidebook.plots.models import images


def tile(figure: Figure, line: int, column: int, side: int = 4) -> np.ndarray:
    """The pixels of one image, read off the picture as it was given to matplotlib."""
    picture = figure.axes[0].images[0]
    array, (_, right, _, _) = np.asarray(picture.get_array()), picture.get_extent()
    fine = round(array.shape[1] / right)
    gap = max(1, round(images.GAP * side * fine))
    top, left = line * (side * fine + gap), column * (side * fine + gap)
    return array[top : top + side * fine : fine, left : left + side * fine : fine]


def test_images_stand_where_they_belong() -> None:
    x = np.random.default_rng(0).random((5, 16))
    figure = images.plot_reconstructions(x, np.stack([1 - x, x / 2]), names=["one", "other"])
    for column in range(5):
        for line, expected in enumerate((x, 1 - x, x / 2)):
            np.testing.assert_allclose(tile(figure, line, column), expected[column].reshape(4, 4))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["data", "one", "other"]
    figure = images.plot_samples(x, columns=3)
    np.testing.assert_allclose(tile(figure, 1, 1), x[4].reshape(4, 4))
    plane = np.random.default_rng(1).random((3, 2, 16))
    np.testing.assert_allclose(tile(images.plot_manifold(plane), 2, 1), plane[2, 1].reshape(4, 4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: images.plot_samples(np.zeros((2, 15))), "15 pixels do not make an image of 3 × 3"),
        (lambda: images.plot_samples(np.zeros((2, 15)), shape=(2, 7)), "of 2 × 7"),
        (lambda: images.plot_reconstructions(np.zeros((2, 16)), np.zeros((3, 16))), "do not match"),
    ],
)
def test_sizes_that_do_not_match_get_a_sentence(call: Callable, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_an_image_may_have_two_sides() -> None:
    x = np.arange(6).reshape(1, 6) / 6
    array = np.asarray(images.plot_samples(x, shape=(2, 3)).axes[0].images[0].get_array())
    np.testing.assert_allclose(array[:: array.shape[0] // 2, :: array.shape[1] // 3], x.reshape(2, 3))
