"""A good file for every reader, to damage: bytes, or arrays and JSON from which the bytes are made."""

import gzip
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from guidebook.inference import Posterior
from guidebook.inference.info import EmInfo

X = np.arange(12.0).reshape(4, 3)
TABLE = "a,b,plan,label\n1,2.5,basic,no\n2,-1e3,plus,yes\n3,7,basic,no\n4,0.25,pro,yes\n"
NUMBERS = "a,b,c\n1,2.5,3\n2,-1e3,4\n3,7,5\n"
MATRIX = "%%MatrixMarket matrix coordinate integer general\n% a comment\n3 4 4\n1 1 2\n2 3 1\n3 4 5\n3 1 1\n"
RECORD: dict[str, Any] = {
    "model": "gmm",
    "method": "em",
    "guide": None,
    "source": "data.csv",
    "settings": ["num_components=2"],
    "encoding": {
        "columns": ["a", "b"],
        "sources": {"a": None, "b": ["x", "y"]},
        "id": [],
        "text": None,
        "stop_words": "english",
        "missing": "refuse",
        "centre": [0.0, 1.0],
        "scale": [1.0, 2.0],
        "top": 3.0,
        "classes": None,
    },
    "inputs": {
        "arguments": {"x": {"dtype": "float64", "shape": [3, 2], "names": ["a"], "top": None, "observed": True}},
        "sites": ["x"],
    },
}


def _sparse() -> dict[str, np.ndarray]:
    matrix = scipy.sparse.csr_matrix(X)
    return {
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "format": np.array(b"csr"),
        "shape": np.array(matrix.shape),
        "data": matrix.data,
    }


def _posterior() -> bytes:
    draws = {"w": torch.arange(6.0).reshape(1, 3, 2)}
    info = EmInfo(
        log_likelihood=-1.0,
        objective=torch.zeros(3),
        optima=[],
        seconds=0.1,
        seed=0,
        converged=True,
        message="level",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "posterior.safetensors"
        Posterior(draws=draws, info=info, params={"w": torch.zeros(2)}).save(path)
        return path.read_bytes()


def _idx() -> bytes:
    return gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + bytes(range(24)))


GOOD: dict[str, Callable[[], Any]] = {
    "csv": lambda: NUMBERS.encode(),
    "labels.csv": lambda: TABLE.encode(),
    "npy": lambda: X,
    "npz": lambda: {"x": X, "y": np.array([0, 1, 0, 1])},
    "sparse.npz": _sparse,
    "mtx": lambda: MATRIX.encode(),
    "idx": _idx,
    "own.json": lambda: {"x": X.tolist(), "y": [0.5, 1.0, 2.0, 3.0], "plan": "basic"},
    "own.csv": lambda: NUMBERS.replace("c", "y").encode(),
    "own.npz": lambda: {"x": X, "y": np.array(["a", "b", "a", "c"])},
    "result.json": lambda: RECORD,
    "safetensors": _posterior,
}
