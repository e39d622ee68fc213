"""Files of states: written whole or not at all, checked when they are read, the last two kept.

A draft is written beside the file, flushed to the disk and renamed, and the folder is flushed too: after a loss of
power there is the state before or the new one. A digest over all that a file holds tells a flipped bit.
"""

import os
import re
import warnings
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..digests import digest
from .trees import Tree, put_together, take_apart

KEPT = 2  # states
PATTERN = "state-*.safetensors"


def write_state(folder: Path, tree: Tree) -> None:
    """Write a state to a folder that exists, and delete all but the last two; OSError if the disk is full."""
    tensors, text = take_apart(tree)
    content = save(tensors, {"state": text, "digest": digest(tensors, text)})
    files = _files(folder)
    number = int(files[-1].stem.rpartition("-")[2]) + 1 if files else 1
    write_whole(folder / f"state-{number:09}.safetensors", content)
    for old in files[: 1 - KEPT]:
        old.unlink(missing_ok=True)


def read_state(method: str, folder: Path) -> Tree | None:
    """Return the last state of a folder that is whole; None if there is none.

    Warns
    -----
    UserWarning
        In the method's name, of a file that is damaged, and what is taken in its place.
    """
    files = _files(folder)
    for file, before in zip(reversed(files), [*reversed(files), None][1:], strict=True):
        try:
            return _read(file)
        except FileNotFoundError:  # a process that has been left behind has written others since
            continue
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError, RecursionError):
            instead = f"going on from {before.name}" if before else "beginning anew"
            warnings.warn(f"{method}: {file} is damaged, or no checkpoint: {instead}", stacklevel=7)
    return None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole, or as it was before, whatever happens meanwhile."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    if os.name == "posix":
        place = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)


def file_name(label: str) -> str:
    """Return a label with what has no place in the name of a folder replaced."""
    return re.sub(r"[^\w.]+", "-", label)


def clear_drafts(folder: Path) -> None:
    """Delete what runs that were killed while they wrote have left."""
    for draft in folder.glob(f".{PATTERN}.*"):
        draft.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob(PATTERN) if file.stem.rpartition("-")[2].isdecimal())


def _read(file: Path) -> Tree:
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    if metadata["digest"] != digest(tensors, metadata["state"]):
        raise ValueError(f"{file} is damaged")
    return put_together(tensors, metadata["state"])
