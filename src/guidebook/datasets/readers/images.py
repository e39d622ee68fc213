"""Grey images in a folder, a row of pixels each."""

from pathlib import Path

import numpy as np

from ..table import KINDS, Table, listed, quoted

ENDINGS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff")


def read_images(where: str, folder: Path) -> Table:
    """Read the images of a folder, in the order of their names; ``where``: name used in error messages.

    Colours are averaged to grey, transparency is ignored, and grey levels run from 0, black, to 1, white.
    """
    from matplotlib.image import imread  # slow to import

    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS)
    rows, shape = [], (0, 0)
    for file in files:
        try:
            pixels = np.asarray(imread(file))
        except Exception as error:  # a damaged image raises anything
            raise ValueError(f"{where}: {file.name} cannot be read as an image") from error
        if pixels.dtype.kind == "u":
            pixels = pixels / np.iinfo(pixels.dtype).max
        if pixels.ndim == 3:
            pixels = pixels[..., : 3 if pixels.shape[2] >= 3 else 1].mean(2)
        if rows and pixels.shape != shape:
            raise ValueError(
                f"{where}: {file.name} is {pixels.shape[0]} × {pixels.shape[1]} pixels, and {files[0].name} "
                f"{shape[0]} × {shape[1]}: all images must have one size"
            )
        shape = pixels.shape
        rows.append(pixels.astype(np.float64).ravel())
    return Table(np.array(rows), pixel_names(*shape), ids={"image": [file.name for file in files]})


def pixel_names(height: int, width: int) -> list[str]:
    """Return names of the pixels, row by row."""
    return [f"pixel_{row}_{column}" for row in range(height) for column in range(width)]


def what_is_in(where: str, folder: Path) -> str:
    """Return "text" or "images" for a folder of .txt files or of images; ValueError for any other."""
    endings = {file.suffix.lower() for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")}
    if ".txt" in endings:
        return "text"
    if endings & {*ENDINGS}:
        return "images"
    found = f"it holds {listed(sorted(map(quoted, endings)), 5)}" if endings else "it is empty"
    raise ValueError(f"{where}: this is a folder without .txt files or images, {found}; give one with them, or {KINDS}")
