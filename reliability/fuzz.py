"""Every reader, given damaged and hostile files: each is read, or refused in one sentence.

``python -m reliability.fuzz --minutes 10`` makes files at random from good ones, within 4 GB of memory, and prints what
ends otherwise; the last file of each reader stays in the folder that it names, for a process that died.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from guidebook import datasets
from guidebook.datasets.encoding import read_encoding
from guidebook.inference import Posterior
from guidebook.workflow.own.data import read_arguments
from guidebook.workflow.own.inputs import read_inputs
from guidebook.workflow.saved import read_record

from .damage import Rng, damaged
from .good_files import GOOD

MEMORY = 4 * 2**30  # bytes
LONGEST = 5.0  # CPU seconds for a file of a few hundred bytes
SENTENCES = (ValueError, OSError)


class Finding(NamedTuple):
    """A file that ended neither in data nor in a sentence."""

    reader: str
    file: Path
    error: str


def _read_record(file: Path) -> None:
    record = read_record(file.parent)
    for part, read in (("encoding", read_encoding), ("inputs", read_inputs)):
        if part in record:
            read(record[part])


READERS: dict[str, Callable[[Path], Any]] = {
    "csv": lambda file: datasets.load(str(file)),
    "labels.csv": lambda file: datasets.load(str(file), target="label", supervised=True),
    "npy": lambda file: datasets.load(str(file)),
    "npz": lambda file: datasets.load(str(file), supervised=True),
    "sparse.npz": lambda file: datasets.load(str(file)),
    "mtx": lambda file: datasets.load(str(file)),
    "idx": datasets.read_idx,
    "own.json": lambda file: read_arguments(str(file), ["x", "y"]),
    "own.csv": lambda file: read_arguments(str(file), ["x", "y"]),
    "own.npz": lambda file: read_arguments(str(file), ["x", "y"]),
    "result.json": _read_record,
    "safetensors": Posterior.load,
}


def attempts(reader: str, rng: Rng, folder: Path) -> Iterator[Finding | None]:
    """Yield what comes of one damaged file after the other, None where it is read or refused."""
    good = GOOD[reader]()
    file = folder / f"{reader.replace('.', '_')}{Path('x.' + reader).suffix}"
    if reader == "result.json":
        file = folder / "result.json"
    while True:
        file.write_bytes(damaged(good, reader, rng))
        yield attempt(reader, file)


def attempt(reader: str, file: Path) -> Finding | None:
    """Read a file; return what is wrong with how that ended, None if nothing is."""
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            READERS[reader](file)
        except SENTENCES as error:
            words = str(error)
            if not words.isprintable() or len(words) > 2000 or type(error).__module__ != "builtins":
                return Finding(reader, file, f"no sentence: {type(error).__name__}: {words[:300]!r}")
        except Exception as error:
            return Finding(reader, file, f"{type(error).__name__}: {str(error)[:300]!r}")
    seconds = time.process_time() - begin
    return Finding(reader, file, f"took {seconds:.0f} s") if seconds > LONGEST else None


def fuzz(seconds: float, folder: Path, seed: int = 0) -> tuple[int, list[Finding]]:
    """Damage files for so many seconds, reader by reader; return how many were tried, and the first findings."""
    count, findings = 0, []
    for number, reader in enumerate(READERS):
        end, found = time.process_time() + seconds / len(READERS), 0
        for one in attempts(reader, np.random.default_rng([seed, number]), folder):
            count += 1
            if one is not None:
                kept = folder / f"{found}_{one.file.name}"
                shutil.copy(one.file, kept)
                findings.append(one._replace(file=kept))
                print(f"{reader}: {kept}: {one.error}", flush=True)
                found += 1
            if found >= 10 or time.process_time() > end:
                break
    return count, findings


def main() -> None:
    """Fuzz every reader for some minutes; exit with 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    folder = Path(tempfile.mkdtemp(prefix="guidebook_fuzz_"))
    print(f"files are written to {folder}", flush=True)
    count, findings = fuzz(60 * options.minutes, folder, options.seed)
    print(json.dumps({"files": count, "found": len(findings)}))
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
