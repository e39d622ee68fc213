"""Commands killed −9 while they fit and write: what is there is whole, and the same words again end as they should."""

import hashlib
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from random import Random

from guidebook import cli
from guidebook.inference import Posterior

from .kills import Outcome, differences, ended_before

FIT = "run gmm --method em --set num_components=2 --out {folder}/fit"
COMMANDS = {  # name -> what must be there before it, and the command
    "run and its report": (None, FIT),
    "compare and its report": (
        None,
        "compare gmm --methods em,gibbs --set num_components=2 --draws 50 --checkpoint {folder}/kept "
        "--every 0 --out {folder}/compared",
    ),
    "index": ("compare gmm --methods em,cavi --set num_components=2 --out {folder}/both", "index {folder}/both --out "
    "{folder}/index.html"),
    "predict": (FIT, "predict {folder}/fit --data {folder}/new.csv --out {folder}/predicted.csv"),
}  # fmt: skip
NEW = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)\n5.1,3.5,1.4,0.2\n6.0,2.9,4.5,1.5\n"


def kill_command(name: str, kills: int, folder: Path, seed: int = 0) -> Outcome:
    """Kill a command so many times; after each, look at its files, and give it again."""
    before, words = COMMANDS[name]
    chance, differing, killed, runs = Random(seed), [], 0, 0
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "new.csv").write_text(NEW)
    if before:
        ended_before(_command(before, folder), None)
    there = set(_files(folder))
    begin = time.perf_counter()
    ended_before(_command(words, folder), None)
    seconds, made = time.perf_counter() - begin, [path for path in _files(folder) if path not in there]
    expected = {path: _content(path) for path in made}
    while killed < kills or not runs:
        for path in made:
            path.unlink()
        shutil.rmtree(folder / "kept", ignore_errors=True)
        while not ended_before(_command(words, folder), chance.uniform(0, seconds) if killed < kills else None):
            killed += 1
            for path in made:
                if path.exists():
                    _content(path)  # or an error says that it is not whole
        runs += 1
        differing += [path.name for path in made if not _same(expected[path], _content(path))]
    return Outcome(killed, runs, seconds, differing)


def _command(words: str, folder: Path) -> Callable[[], None]:
    def run() -> None:
        sys.argv = ["guidebook", *(word.format(folder=folder) for word in words.split())]
        said = StringIO()
        try:
            with redirect_stdout(StringIO()), redirect_stderr(said):
                cli.main()
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"status {stop.code}: {said.getvalue()}") from None

    return run


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and "kept" not in path.parts)
    return sorted(path for path in found if not any(part.startswith(".guidebook") for part in path.parts))


def _content(path: Path) -> object:
    """Return what a file holds but for seconds and checksums; an error says if it is not whole."""
    if path.suffix == ".safetensors":
        return Posterior.load(path)
    text = path.read_text(encoding="utf-8")
    if path.name == "run.json":  # of files that have seconds in them, so that their checksums differ
        record = json.loads(text)
        return record | {"files": {name: _is_that_of(path.parent / name, sha) for name, sha in record["files"].items()}}
    if path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".html" and not text.rstrip().endswith("</html>"):
        raise RuntimeError(f"{path} is not whole")
    return None if path.suffix == ".html" else re.sub(r'"seconds": [\d.e-]+', "", text)


def _is_that_of(file: Path, checksum: str) -> bool:
    return file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == checksum


def _same(one: object, other: object) -> bool:
    if isinstance(one, Posterior) and isinstance(other, Posterior):
        return not differences(one, other)
    return one == other
