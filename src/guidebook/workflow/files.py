"""Files written whole or not at all."""

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def atomic_write(path: str | Path, text: str) -> Path:
    """Write a draft beside the file and rename it: a failure leaves the old file, or none."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        return draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def file_name(label: str) -> str:
    """Return the name of a file, without its ending, for a method with its guide, which may be a path."""
    return re.sub(r"[^\w.]+", "-", label)


def as_json(record: Any) -> str:
    """Return a record as the text of a JSON file; ValueError for a number that JSON cannot hold."""
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


@contextmanager
def drafted(folder: Path) -> Iterator[Path]:
    """Give a temporary folder whose files move to ``folder`` if the block succeeds."""
    with tempfile.TemporaryDirectory(dir=_existing(folder), prefix=".guidebook-") as draft:
        yield Path(draft)
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(draft).iterdir():
            file.replace(folder / file.name)


def check_writable(folder: Path) -> None:
    """Raise OSError before a long fit, not after it, if files cannot be written to ``folder``."""
    with tempfile.TemporaryFile(dir=_existing(folder)):
        pass


def _existing(folder: Path) -> Path:
    """Return the nearest folder upwards that exists."""
    found = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not found.is_dir():
        raise NotADirectoryError(f"{found} is not a folder")
    return found
