"""Small grey images side by side: data and reconstructions, samples, the plane of two factors."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from ..style import SOFT, style

GAP = 0.12  # between two images, as a fraction of the shorter side
INCHES, WIDEST = 0.42, 7.2  # width of an image, and of a figure at most


def plot_reconstructions(
    x: ArrayLike, reconstructed: ArrayLike, *, shape: tuple[int, int] | None = None, names: Sequence[str] = ()
) -> Figure:
    """Plot images, and below each its reconstructions.

    Parameters
    ----------
    x : array, shape (n, d)
        Images, flat, from 0 (white) to 1 (black).
    reconstructed : array, shape (n, d) or (m, n, d)
        Reconstructions of these images by one model or by m.
    shape : (int, int), optional
        Height and width of an image in pixels; default: square.
    names : sequence of str, optional
        Names of the m models.

    Raises
    ------
    ValueError
        If the sizes do not match, or d pixels do not make a square and no shape is given.
    """
    top, below = np.asarray(x), np.asarray(reconstructed)
    below = below[None] if below.ndim == 2 else below
    if below.shape[1:] != top.shape:
        raise ValueError(f"plot_reconstructions: {below.shape[1:]} reconstructions do not match {top.shape} images")
    figure, ax, (height, _) = _draw(np.concatenate([top[None], below]), shape)
    labels = ("data", *(names or (["reconstructed"] if len(below) == 1 else [str(i) for i in range(len(below))])))
    ax.set_yticks([height * (1 + GAP) * line + height / 2 for line in range(len(labels))], labels)
    return figure


def plot_samples(images: ArrayLike, *, columns: int = 10, shape: tuple[int, int] | None = None) -> Figure:
    """Plot images line by line, as `guidebook.models.vae.generate` returns them.

    Parameters
    ----------
    images : array, shape (n, d)
        From 0 (white) to 1 (black); blank tiles fill the last line.
    columns : int
        Images per line.
    shape : (int, int), optional
        As for `plot_reconstructions`.
    """
    flat = np.asarray(images, dtype=float)
    columns = min(columns, len(flat))
    lines = math.ceil(len(flat) / columns)
    filled = np.full((lines * columns, flat.shape[1]), np.nan)
    filled[: len(flat)] = flat
    return _draw(filled.reshape(lines, columns, -1), shape)[0]


def plot_manifold(images: ArrayLike, *, shape: tuple[int, int] | None = None) -> Figure:
    """Plot decoded means over the plane of two factors, as `guidebook.models.vae.manifold` returns them.

    Parameters
    ----------
    images : array, shape (lines, columns, d)
        The second factor grows upwards, the first to the right.
    shape : (int, int), optional
        As for `plot_reconstructions`.
    """
    figure, ax, _ = _draw(np.asarray(images), shape)
    ax.set(xlabel="first factor, by quantiles of the prior →", ylabel="second factor →")
    return figure


def _draw(images: np.ndarray, shape: tuple[int, int] | None) -> tuple[Figure, Axes, tuple[int, int]]:
    """Draw images (line, column, d) as one picture without ticks; also return an image's height and width."""
    lines, columns, pixels = images.shape
    side = math.isqrt(pixels)
    height, width = shape or (side, side)
    if height * width != pixels:
        raise ValueError(f"images: {pixels} pixels do not make an image of {height} × {width}: give its shape")
    fine = 8  # sub-pixels, so that gaps need not be whole pixels
    gap = max(1, round(GAP * min(height, width) * fine))
    tiles = images.reshape(lines, columns, height, width).repeat(fine, 2).repeat(fine, 3)
    framed = np.pad(tiles, ((0, 0), (0, 0), (0, gap), (0, gap)), constant_values=np.nan).swapaxes(1, 2)
    canvas = framed.reshape(lines * framed.shape[1], columns * framed.shape[3])[:-gap, :-gap]
    inches = min(INCHES, WIDEST / columns)
    with style():
        figure = Figure(figsize=(columns * inches + 1.1, lines * inches * height / width * (1 + GAP) + 0.35))
        ax = figure.subplots()
        extent = (0, canvas.shape[1] / fine, canvas.shape[0] / fine, 0)
        ax.imshow(canvas, cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.tick_params(length=0, labelcolor=SOFT)
        ax.spines[:].set_visible(False)
    return figure, ax, (height, width)
