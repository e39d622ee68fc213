"""Fingerprints of what a fit depends on: data, options, and the code of a user's model.

Libraries are known by their versions; a user's own functions by their code, by what they have bound, and by the plain
globals and functions that they use.
"""

import hashlib
import inspect
import json
import sys
import types
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..posterior import Posterior

LIBRARIES = ("guidebook", "torch", "pyro-ppl", "numpy", "scipy", "jax", "numpyro")
KNOWN = {"guidebook", "torch", "pyro", "numpy", "scipy", "sklearn", "jax", "functools", "builtins", "math"}
MOST_BYTES = 2**28  # of a tensor that are read in full; of a larger one, an evenly spaced part
COUNTS = {"calls", "rows_held", "bytes_held", "_first", "_num_rows"}  # what changes as a loss or a stream is used
VARYING = {"seconds", "message", "rungs"}  # fields of the record of a run that differ where its draws do not


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide on the last digit; "none" if not there."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


def fingerprint(value: Any) -> str:
    """Return a hash of a value that is the same in every process."""
    reader = _Reader()
    reader.read(value)
    return reader.digest.hexdigest()


class _Reader:
    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self._seen: dict[int, Any] = {}  # objects, which must live on so that no other gets their number

    def note(self, *words: Any) -> None:
        self.digest.update(json.dumps(words, default=str).encode())

    def read(self, value: Any) -> None:
        """Take a value in."""
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self.note(type(value).__name__, repr(value))
        elif isinstance(value, Tensor):
            self.note("tensor", str(value.dtype), list(value.shape), str(value.device))
            dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            self._numbers(dense.cpu().contiguous().flatten().view(torch.uint8).numpy())
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self.note("array", str(value.dtype), list(value.shape))
            self._numbers(np.ascontiguousarray(value).reshape(-1).view(np.uint8))
        elif id(value) in self._seen:
            self.note("again", list(self._seen).index(id(value)))
        else:
            self._seen[id(value)] = value
            self._compound(value)

    def _numbers(self, content: np.ndarray) -> None:
        self.digest.update(np.ascontiguousarray(content[:: len(content) // MOST_BYTES + 1]).data)

    def _compound(self, value: Any) -> None:
        if isinstance(value, Posterior):
            about = {name: entry for name, entry in vars(value.info).items() if name not in VARYING}
            self._all("posterior", dict(value.draws), dict(value.params), about)
        elif isinstance(value, dict):
            self._all("dict", *(part for pair in value.items() for part in pair))
        elif isinstance(value, list | tuple):
            self._all(type(value).__name__, *value)
        elif isinstance(value, set | frozenset):
            self._all("set", *sorted(value, key=repr))
        elif isinstance(value, partial):
            self._all("partial", value.func, value.args, value.keywords)
        elif isinstance(value, types.MethodType):
            self._all("method", value.__func__, value.__self__)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, type):
            self.note("class", value.__module__, value.__qualname__)
            if not _is_known(value):
                self._all(
                    "has", *(v for v in vars(value).values() if isinstance(v, types.FunctionType) or _is_plain(v))
                )
        elif isinstance(value, types.CodeType):
            self.note("code", value.co_code.hex(), value.co_names, value.co_varnames)
            self._all("constants", *value.co_consts)
        elif isinstance(value, torch.Generator):
            self.read(value.get_state())
        elif isinstance(value, types.ModuleType):
            self.note("module", value.__name__)
        else:
            self.read(type(value))
            if isinstance(getattr(value, "__dict__", None), dict):
                self.read({name: entry for name, entry in vars(value).items() if name not in COUNTS})

    def _function(self, value: types.FunctionType) -> None:
        self.note("function", value.__module__, value.__qualname__)
        inner = inspect.unwrap(value)
        if _is_known(value) and inner is not value:  # what is around it, such as a cache, may change
            self.read(inner)
            return
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        self._all("bound", value.__defaults__, value.__kwdefaults__, *cells)
        if _is_known(value):
            return
        self.read(value.__code__)
        for name in sorted(_names(value.__code__)):
            used = value.__globals__.get(name)
            if name in value.__globals__ and not isinstance(used, types.ModuleType):
                self.note("global", name)
                self.read(used)

    def _all(self, kind: str, *values: Any) -> None:
        self.note(kind, len(values))
        for value in values:
            self.read(value)


def _is_known(value: Any) -> bool:
    """Whether a function or class belongs to a library, which its version describes."""
    return (value.__module__ or "").partition(".")[0] in KNOWN


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple | Tensor)


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _names(code: types.CodeType) -> set[str]:
    inner = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))
