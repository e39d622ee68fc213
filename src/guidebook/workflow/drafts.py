"""Drafts of folders: one run at a time per folder, and nothing of a run in it before the run has succeeded.

A draft lies beside the folder to come, or in the one that is there, and holds a file that its run keeps locked: the
lock ends with the process, however that ends, so that drafts of killed runs are known and cleared. Where there are no
locks (Windows, some network file systems) runs are not kept apart, and drafts of others are left alone.
"""

import errno
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from guidebook.workflow.manifest import MANIFEST, write_manifest

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

PREFIX = ".guidebook-"
LOCK = "lock"
WAITS = (0.0, 0.1, 0.2)  # seconds before each try: another run may just be clearing drafts


class Draft:
    """A draft of a folder, whose lock this process holds."""

    def __init__(self, folder: Path, path: Path, lock: int) -> None:
        self.folder, self.path, self._lock = folder, path, lock
        self.files = path / "files"

    def begin(self) -> None:
        """Make the folder of the files, empty."""
        shutil.rmtree(self.files, ignore_errors=True)  # of a run that was killed
        self.files.mkdir()

    def publish(self, record: dict[str, Any] | None) -> None:
        """Move the files to the folder: all at once into one that is new, and each whole into one that is there.

        The manifest is moved last. An interrupt meanwhile waits until all have been moved.
        """
        stale = write_manifest(self.files, self.folder, record)
        mode = stat.S_IMODE(os.fstat(self._lock).st_mode)  # that of any file which this process makes
        for file in self.files.iterdir():
            if file.is_file():
                file.chmod(mode)
                sync(file)
        if not self.folder.exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self.files.rename(self.folder)
        else:
            self._move(stale)
        sync(self.folder)

    def _move(self, stale: list[Path]) -> None:
        files = sorted(self.files.iterdir(), key=lambda file: file.name == MANIFEST)
        try:
            for file in files:
                file.replace(self.folder / file.name)
            for file in stale:
                file.unlink(missing_ok=True)
        except KeyboardInterrupt:
            self._move(stale)
            raise

    def release(self) -> None:
        """Remove the draft and give up its lock; what cannot be removed is left for the next run to clear."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


_held: dict[Path, Draft] = {}


def claim(folder: Path) -> Draft:
    """Return the draft of a folder, to be held until `release_all`.

    Raises
    ------
    OSError
        If files cannot be written there.
    ValueError
        If another run is about to write to the folder.
    """
    real = Path(os.path.realpath(folder))
    if real not in _held:
        parent = existing(real)
        _clear(parent)
        path = parent / f"{PREFIX}{hashlib.sha256(os.fsencode(real)).hexdigest()[:12]}"
        lock = next((lock for lock in (_locked(path, wait) for wait in WAITS) if lock is not None), None)
        if lock is None:
            raise ValueError(f"--out: another run is writing to {folder}: wait for it, or name another folder")
        _held[real] = Draft(real, path, lock)
    return _held[real]


def release_all() -> None:
    """Remove the drafts of this process."""
    while _held:
        _held.popitem()[1].release()


@contextmanager
def claimed(folder: Path) -> Iterator[Draft]:
    """Give the draft of a folder for a block; one that was claimed before stays so."""
    before = {*_held}
    draft = claim(folder)
    try:
        draft.begin()
        yield draft
    finally:
        if draft.folder not in before:
            _held.pop(draft.folder).release()


def existing(folder: Path) -> Path:
    """Return the nearest folder upwards that exists."""
    found = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not found.is_dir():
        raise NotADirectoryError(f"{found} is not a folder")
    return found


def sync(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, reach the disk, where that can be asked for."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _locked(path: Path, wait: float) -> int | None:
    """Make the folder of a draft, or take one that a killed run left; return its lock, or None if a run holds it."""
    time.sleep(wait)
    while True:
        path.mkdir(exist_ok=True)
        try:
            lock = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o666)
        except FileNotFoundError:  # its run has just removed it
            continue
        try:
            _hold(lock)
            if os.path.samestat(os.fstat(lock), os.stat(path / LOCK)):
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        except OSError:  # no locks
            return lock
        os.close(lock)


def _clear(parent: Path) -> None:
    """Remove the drafts of runs that were killed."""
    for path in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            lock = os.open(path / LOCK, os.O_RDWR)
            try:
                _hold(lock)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def _hold(lock: int) -> None:
    """Lock an open file; BlockingIOError if another process holds it, another OSError where there are no locks."""
    if fcntl is None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
