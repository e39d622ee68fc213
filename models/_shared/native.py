"""C++ that comes with a model, compiled once on a machine and kept in the user's cache."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from ctypes import CDLL
from pathlib import Path

import torch

COMPILERS = ("c++", "g++", "clang++")
_FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-pthread")
_VECTORS = {
    "AVX512": ("-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mavx2", "-mfma"),
    "AVX2": ("-mavx2", "-mfma"),
}


class CannotCompileError(Exception):
    """There is no compiler, it refused the code, or what it made does not load; the message is a clause."""


def load_cpp(source: Path) -> CDLL:
    """Return the library compiled from a file, from the cache if it was compiled before.

    It is compiled for the vector instructions that torch uses here, and a machine with others makes its own. Names of
    files in the cache have their checksum: one that was cut short, which would end the process, is made anew.

    Raises
    ------
    CannotCompileError
    """
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise CannotCompileError("there is no C++ compiler (g++ or clang++)")
    command = [compiler, *_FLAGS, *_VECTORS.get(torch.backends.cpu.get_cpu_capability(), ()), str(source)]
    key = _digest(" ".join(command[1:-1]).encode() + source.read_bytes())
    try:
        folder = _folder()
        folder.mkdir(parents=True, exist_ok=True)
        for found in folder.glob(f"{source.stem}-{key}-*.so"):
            if found.stem.endswith(_digest(found.read_bytes())):
                return CDLL(str(found))
            found.unlink(missing_ok=True)
        return _compiled(command, folder, f"{source.stem}-{key}")
    except OSError:  # no room, no right to write, or no right to run what lies there
        try:
            with tempfile.TemporaryDirectory(prefix="guidebook-") as place:
                return _compiled(command, Path(place), source.stem)
        except OSError as error:
            raise CannotCompileError(str(error)) from error


def _folder() -> Path:
    import pooch

    return Path(pooch.os_cache("guidebook")) / "compiled"


def _compiled(command: list[str], folder: Path, name: str) -> CDLL:
    draft = folder / f".{name}.{os.getpid()}.so"
    try:
        ran = subprocess.run([*command, "-o", str(draft)], capture_output=True, text=True, check=False)
        if ran.returncode:
            first = next(filter(None, ran.stderr.splitlines()), f"exit status {ran.returncode}")
            raise CannotCompileError(f"{command[0]} failed: {first}")
        library = draft.replace(folder / f"{name}-{_digest(draft.read_bytes())}.so")
    finally:
        draft.unlink(missing_ok=True)
    return CDLL(str(library))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
