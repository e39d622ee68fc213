"""IDX, the format of MNIST's files: a magic number, the lengths of the axes, then the values, all big-endian."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | Path) -> np.ndarray:
    """Read an IDX file, gzipped or not.

    Returns
    -------
    ndarray
        In the shape and type that the file declares, in this machine's byte order.

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
