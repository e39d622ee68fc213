"""Files in torch's cache of compiled code, each with a checksum beside it.

A library that was cut short, by a killed compiler or a full disk, ends the process with a bus error when it is loaded.
"""

import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class DamagedError(Exception):
    """A file of the cache is not what was once made, and has been removed."""


def with_whole_files(work: Callable[[Callable[[str], None]], T]) -> T:
    """Call ``work(check)``, which calls ``check`` on each file of the cache before it loads it.

    A file without the checksum that it should have is removed, and ``work`` is called again, to make it anew.
    """
    begin, removed = time.time(), []

    def check(path: str) -> None:
        file = Path(path)
        digest, noted = hashlib.sha256(file.read_bytes()).hexdigest(), file.with_name(f"{file.name}.sha256")
        if noted.is_file() and noted.read_text(errors="replace") == digest:
            return
        if noted.is_file() or file.stat().st_mtime < begin - 1:  # of an earlier process, and nobody knows what it was
            removed.append(path)
            noted.unlink(missing_ok=True)
            file.unlink(missing_ok=True)
            raise DamagedError(path)
        draft = noted.with_name(f".{noted.name}.{os.getpid()}")
        with suppress(OSError):  # such as a full disk: then it is made anew next time
            draft.write_text(digest)
            draft.replace(noted)

    while True:
        found = len(removed)
        try:
            return work(check)
        except Exception:  # torch may wrap it
            if len(removed) == found:
                raise
