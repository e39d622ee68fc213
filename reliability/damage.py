"""Damage to files: bits, bytes and lengths of any; cells of text; arrays of an archive; values and depth of JSON."""

import copy
import io
import json
import struct
from typing import Any

import numpy as np

Rng = np.random.Generator
TOKENS = (
    *(
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "-1",
        "0",
        "1_000",
        "1,5",
        "0x10",
        '"',
        "'",
        "\x00",
        "\n",
        "\r",
        ",,",
        ";",
    ),
    *("\ufeff", "é", "1e-320", "9" * 400, "2020-01-01", "=1+1", "%", "\t", "[", "{", "a" * 10_000, "-999999999999"),
    *("1000000000", "4294967296", "18446744073709551616", "complex", "array", "real", "pattern", "hermitian"),
)
VALUES: tuple[Any, ...] = (
    *(None, True, "", "x", -1, 0, 1e308, float("nan"), float("inf"), 10**30, [], {}, [[1], [2, 3]], ["a", 1]),
    *({"a": None}, "9" * 200, [None], [[[]]]),
)


def damaged(good: Any, reader: str, rng: Rng) -> bytes:
    """Return the bytes of a file for a reader, damaged by one to three changes."""
    changes = int(rng.integers(1, 4))
    if isinstance(good, dict) and all(isinstance(value, np.ndarray) for value in good.values()):
        return _archive(good, rng, changes) if rng.random() < 0.7 else _bytes(_npz(good), rng, changes)
    if isinstance(good, dict):
        return _json(good, rng, changes) if rng.random() < 0.8 else _bytes(json.dumps(good).encode(), rng, changes)
    if isinstance(good, np.ndarray):
        return _npy(_array(good, rng)) if rng.random() < 0.5 else _bytes(_npy(good), rng, changes)
    if reader == "safetensors" and rng.random() < 0.6:
        return _tensors(good, rng, changes)
    if b"\0" not in good and rng.random() < 0.7:
        return _text(good, rng, changes)
    return _bytes(good, rng, changes)


def nested(depth: int) -> bytes:
    """Return JSON of lists within lists."""
    return b"[" * depth + b"]" * depth


def _bytes(good: bytes, rng: Rng, changes: int) -> bytes:
    found = bytearray(good)
    for _ in range(changes):
        place = int(rng.integers(len(found))) if found else 0
        match int(rng.integers(6)):
            case 0:
                del found[place:]
            case 1:
                found[place : place + 1] = bytes([rng.integers(256)])
            case 2:
                found[place : place + 4] = struct.pack("<i", int(rng.integers(-(2**31), 2**31)))
            case 3:
                found[place:place] = rng.bytes(int(rng.integers(1, 40)))
            case 4:
                del found[place : place + int(rng.integers(1, 20))]
            case 5:
                found += found[place:]
    return bytes(found)


def _text(good: bytes, rng: Rng, changes: int) -> bytes:
    text = good.decode()
    for _ in range(changes):
        place, length = int(rng.integers(len(text) + 1)), int(rng.integers(0, 6))
        text = text[:place] + TOKENS[rng.integers(len(TOKENS))] + text[place + length :]
    return text.encode("utf-8", "surrogatepass")


def _array(good: np.ndarray, rng: Rng) -> np.ndarray:
    """Return an array with another entry, shape, type or length."""
    found = good.copy()
    with np.errstate(all="ignore"):
        return _changed(found, rng)


def _changed(found: np.ndarray, rng: Rng) -> np.ndarray:
    match int(rng.integers(6)):
        case 0 if found.size and found.dtype.kind in "if":
            worst = (0, -1, -3, 10**9, 2**31 - 1, -(2**31), 99)
            found.flat[rng.integers(found.size)] = worst[rng.integers(len(worst))]
        case 1:
            kinds = ("<f4", ">f8", "<i8", "?", "<c16", "<U4", "<M8[s]", "<f2", "S3")
            found = np.resize(np.arange(found.size or 1), found.shape).astype(kinds[rng.integers(len(kinds))])
        case 2:
            found = found[..., None] if found.ndim else np.resize(found, 3)
        case 3 if found.ndim:
            found = found[: rng.integers(len(found) + 1)]
        case 4:
            found = found.reshape(-1)
        case _ if found.dtype.kind == "f" and found.size:
            found.flat[rng.integers(found.size)] = (np.nan, np.inf, 1e308)[rng.integers(3)]
    return found


def _archive(good: dict[str, np.ndarray], rng: Rng, changes: int) -> bytes:
    found = dict(good)
    for _ in range(changes):
        name = [*found][rng.integers(len(found))] if found else "x"
        kind = rng.random()
        if kind < 0.1:
            found.pop(name, None)
        elif kind < 0.2 and name == "format":
            found[name] = np.array((b"csc", b"bsr", b"dia", b"coo", b"lil", b"xyz", "csr")[rng.integers(7)])
        elif name in found:
            found[name] = _array(np.asarray(found[name]), rng)
    return _npz(found)


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    return file.getvalue()


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _json(good: dict[str, Any], rng: Rng, changes: int) -> bytes:
    found = copy.deepcopy(good)
    for _ in range(changes):
        if rng.random() < 0.05:
            return json.dumps(found)[:-1].encode() + b', "deep": ' + nested(int(rng.integers(10, 100_000))) + b"}"
        _change(found, rng)
    return json.dumps(found).encode()


def _change(node: Any, rng: Rng) -> None:
    """Give some entry, at any depth, another value, or take it away."""
    keys = [*node] if isinstance(node, dict) else [*range(len(node))]
    if not keys:
        return
    key = keys[rng.integers(len(keys))]
    if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
        _change(node[key], rng)
    elif rng.random() < 0.2:
        del node[key]
    else:
        node[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def _tensors(good: bytes, rng: Rng, changes: int) -> bytes:
    """Return a safetensors file with another header, or other metadata in it."""
    length = struct.unpack("<Q", good[:8])[0]
    header, rest = json.loads(good[8 : 8 + length]), good[8 + length :]
    if rng.random() < 0.5:
        plain = json.loads(header["__metadata__"]["guidebook"])
        header["__metadata__"]["guidebook"] = _json(plain, rng, changes).decode()
    else:
        _change(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest
