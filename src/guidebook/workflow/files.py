"""Files written whole or not at all; what a user gives as a device, a pipe or a link stays one."""

import glob
import json
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from guidebook.workflow.drafts import claimed, existing, sync

STALE = 3600.0  # seconds without a write, after which a draft is one that a killed process left


def atomic_write(path: str | Path, text: str) -> Path:
    """Write a draft beside the file and rename it: a failure leaves the old file, or none.

    A link is followed. What is no file, such as a pipe or a device, is written to as it is.
    """
    path = Path(path)
    with _named(path):
        if is_stream(path):
            path.write_text(text, encoding="utf-8")
        else:
            _replace(Path(os.path.realpath(path)), text)
    return path


def _replace(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_drafts(target)
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        if target.is_file():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        sync(draft)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _named(path: Path, draft: Path | None = None) -> Iterator[None]:
    """Name the path in an OSError that names none, as of a full disk, or that names a file in its draft."""
    try:
        yield
    except OSError as error:
        given = error.filename
        inside = draft is not None and given is not None and Path(given).is_relative_to(draft)
        if error.errno is None or (given is not None and not inside):
            raise
        name = path if given is None or draft is None else path / Path(given).relative_to(draft)
        raise OSError(error.errno, error.strerror, str(name)) from None


def is_stream(path: Path) -> bool:
    """Whether a path leads to something to write to in place: a pipe, a device, or an open file of this process."""
    if path.is_symlink() and re.match(r"/(dev|proc)/", str(path.absolute())):
        return True  # /dev/stdout: whoever reads it holds the file that is there now
    return path.exists() and not path.is_file() and not path.is_dir()


def file_name(label: str) -> str:
    """Return the name of a file, without its ending, for a method with its guide, which may be a path."""
    return re.sub(r"[^\w.]+", "-", label)


def as_json(record: Any) -> str:
    """Return a record as the text of a JSON file; ValueError for a number that JSON cannot hold."""
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def drafted(folder: Path, record: dict[str, Any] | None = None) -> Iterator[Path]:
    """Give a temporary folder whose files move to ``folder`` if the block succeeds.

    With the ``record`` of a run, files of an earlier run into ``folder`` go, as far as they are what it wrote.
    """
    with claimed(folder) as draft, _named(folder, draft.files):
        yield draft.files
        draft.publish(record)


def check_writable(folder: Path) -> None:
    """Raise OSError before a long fit, not after it, if files cannot be written to ``folder``."""
    with tempfile.TemporaryFile(dir=existing(folder)):
        pass


def _clear_drafts(target: Path) -> None:
    """Remove drafts of this file that processes left which were killed while they wrote it."""
    for draft in target.parent.glob(f".{glob.escape(target.name)}.*"):
        with suppress(OSError):
            if draft.suffix[1:].isdecimal() and time.time() - draft.stat().st_mtime > STALE:
                draft.unlink()
