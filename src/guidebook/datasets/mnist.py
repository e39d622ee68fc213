"""MNIST's handwritten digits: fetched once with a checked hash, or put in the cache by hand.

LeCun, Cortes and Burges, The MNIST database of handwritten digits: 60,000 training and 10,000 test images of 28 × 28
pixels with 256 levels of grey. Its files are in the format IDX: a magic number, the lengths of the axes, then the
values, all big-endian.
"""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
HASHES = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
PARTS = {"train": "train", "test": "t10k"}


def cache() -> Path:
    """Where downloads are kept: the folder that GUIDEBOOK_DATA names, or the system's cache for this program."""
    import pooch

    return Path(os.environ.get("GUIDEBOOK_DATA") or pooch.os_cache("guidebook"))


def mnist(part: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Images and labels; the files are looked for in `cache` first, unpacked or gzipped, and then downloaded.

    Parameters
    ----------
    part : {"train", "test"}

    Returns
    -------
    images : ndarray, shape (n, 784), float64
        Grey levels divided by 255, row by row.
    labels : ndarray, shape (n,), int64

    Raises
    ------
    ValueError
        For an unknown part, or a file that is not what its name says.
    OSError
        If a file is not there and cannot be downloaded; the message says where it may be put by hand.
    """
    if part not in PARTS:
        raise ValueError(f"mnist: part must be train or test, got {part!r}")
    images, labels = (read_idx(_file(f"{PARTS[part]}-{kind}-ubyte.gz")) for kind in ("images-idx3", "labels-idx1"))
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise ValueError(f"mnist: images of shape {images.shape} and labels of shape {labels.shape} do not go together")
    return images.reshape(len(images), -1) / 255.0, labels.astype(np.int64)


def _file(name: str) -> Path:
    """A file of the cache, downloaded if neither it nor its unpacked form is there."""
    folder = cache()
    for path in (folder / name.removesuffix(".gz"), folder / name):
        if path.exists():
            return path
    import pooch

    try:
        return Path(pooch.retrieve(URL + name, HASHES[name], fname=name, path=folder, progressbar=False))
    except Exception as error:  # requests has exceptions of its own
        raise OSError(
            f"mnist: {name} could not be downloaded ({type(error).__name__}): put it into {folder} by hand, "
            "or let GUIDEBOOK_DATA name a folder that has it"
        ) from error


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzipped or not, as the shape and type that it declares, in this machine's byte order.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no IDX file, or is cut short or too long.
    """
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: the gzip file is damaged or cut short") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _TYPES:
        raise ValueError(f"{path}: this is not an IDX file")
    kind, axes = np.dtype(_TYPES[raw[2]]), raw[3]
    start = 4 + 4 * axes
    if len(raw) < start:
        raise ValueError(f"{path}: the IDX file is cut short")
    shape = struct.unpack(f">{axes}I", raw[4:start])
    expected = start + kind.itemsize * math.prod(shape)
    if len(raw) != expected:
        raise ValueError(f"{path}: {len(raw)} bytes where its header, of shape {shape}, promises {expected}")
    return np.frombuffer(raw, kind, offset=start).reshape(shape).astype(kind.newbyteorder("="))
