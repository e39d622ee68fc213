"""C++ without headers to a shared library, kept in torch's cache folder: the compiler alone, nothing of torch's."""

import ctypes
import getpass
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from .artefacts import with_whole_files

COMPILERS = ("g++", "clang++", "c++")
_FLAGS = "-std=c++17 -shared -fPIC -O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp-simd -w"
_loaded: dict[str, ctypes.CDLL] = {}


def vector_library() -> tuple[int, ...]:
    """Return the release of glibc if it has functions for several numbers at once that the compiler can call."""
    library, release = platform.libc_ver()
    usable = platform.machine() == "x86_64" and library == "glibc" and shutil.which("g++")
    return tuple(map(int, release.split("."))) if usable else ()


def build(source: str) -> ctypes.CDLL:
    """Compile C++, or load it from the cache; RuntimeError with the compiler's message."""
    compiler = next(path for path in map(shutil.which, COMPILERS) if path)
    command = [compiler, *_FLAGS.split()]
    libraries = ["-lmvec", "-lm"] if vector_library() else ["-lm"]
    identity = "\n".join([*command, *libraries, torch.backends.cpu.get_cpu_capability(), source])
    key = hashlib.sha256(identity.encode()).hexdigest()[:40]
    if key in _loaded:
        return _loaded[key]
    folder = _cache() / "guidebook"
    path = folder / f"{key}.so"

    def load(check: Callable[[str], None]) -> ctypes.CDLL:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as draft:
                written = Path(draft, "step.cpp")
                written.write_text(source)
                built = Path(draft, path.name)
                done = subprocess.run(
                    [*command, str(written), "-o", str(built), *libraries], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    raise RuntimeError(done.stderr)
                built.replace(path)  # whole, or not at all
        check(str(path))
        return ctypes.CDLL(str(path))

    _loaded[key] = with_whole_files(load)
    return _loaded[key]


def _cache() -> Path:
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    return Path(given) if given else Path(tempfile.gettempdir(), f"torchinductor_{getpass.getuser()}")
