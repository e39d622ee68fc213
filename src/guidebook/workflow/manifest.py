"""``run.json`` in a folder: what made its files, and their checksums, so that none is taken for another run's."""

import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MANIFEST = "run.json"
COMMANDS = ("run", "fit", "compare", "choose", "calibrate")  # whose runs can be repeated
TARGETS = ("--out", "--json")  # options that change nothing in the numbers


def write_manifest(draft: Path, folder: Path, record: dict[str, Any] | None) -> list[Path]:
    """Write a run's record and the checksums of its files into its draft; return what to remove from the folder.

    That is what an earlier run wrote there and this one does not, unless it has been changed since. Without a record,
    the files join those of the run that the folder has, and nothing is removed.
    """
    before = read_manifest(folder) or {"files": {}}
    sums = {file.name: sha256(file) for file in sorted(draft.iterdir()) if file.is_file()}
    if record is None and not before["files"]:
        return []
    made = before | {"files": before["files"] | sums} if record is None else record | {"files": sums}
    (draft / MANIFEST).write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if record is None:
        return []
    return [folder / name for name, digest in before["files"].items() if name not in sums and _is(folder, name, digest)]


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the record of the run that wrote a folder, or None."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def read_run(place: Path) -> tuple[dict[str, Any], Path | None]:
    """Return the record of a run from its folder or a report, and the folder with its results, if there is one.

    Raises
    ------
    ValueError
        If there is no record, or it is of no command that can be repeated.
    """
    folder = place if place.is_dir() else place.parent
    record = read_manifest(folder)
    if not place.is_dir():
        told = _told(place)
        beside = record is not None and told is not None and record.get("results") == told.get("results")
        record, folder = (record, folder) if beside else (told, None)
    if record is None:
        made = f"{', '.join(COMMANDS[:-1])} or {COMMANDS[-1]}"
        raise ValueError(f"rerun: {place} does not say by which run it was made: give what {made} wrote")
    words: Any = record.get("command")
    known = isinstance(words, list) and words and all(isinstance(word, str) for word in words)
    parts = isinstance(record.get("data"), dict) and isinstance(record.get("results"), dict)
    if not known or words[0] not in COMMANDS or not parts:
        raise ValueError(f"rerun: {place} names no run that can be repeated")
    return record | {"command": without_targets(words)}, folder


def _told(page: Path) -> dict[str, Any] | None:
    try:
        found = re.search(r'<meta name="guidebook-run" content="([^"]*)">', page.read_text(encoding="utf-8"))
        record = json.loads(html.unescape(found[1])) if found else None
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def without_targets(words: Iterable[str]) -> list[str]:
    """Return the words of a command without those that say where its results go."""
    kept, skipped = [], False
    for word in words:
        if skipped or word.partition("=")[0] in TARGETS:
            skipped = not skipped and word in TARGETS
        else:
            kept.append(word)
    return kept


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _is(folder: Path, name: str, digest: str) -> bool:
    """Whether a file of this name lies in the folder itself, with this content."""
    file = folder / name
    return Path(name).name == name and file.is_file() and not file.is_symlink() and sha256(file) == digest
