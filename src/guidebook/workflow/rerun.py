"""A run repeated from what its folder or its report says of it, and whether it came out the same."""

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guidebook.inference import Posterior
from guidebook.inference.versions import versions
from guidebook.workflow.manifest import read_manifest
from guidebook.workflow.own.file import functions_in

INTERRUPTED = 130  # what typer makes of Ctrl-C


class Repeated(NamedTuple):
    """What came of a run that was repeated."""

    same: bool  # bit for bit
    sentence: str
    largest_difference: float | None  # None: not known, or not of numbers that are comparable
    quantity: str | None  # where it is
    changed: dict[str, list[str | None]]  # versions then and now
    same_data: bool


def repeat(record: dict[str, Any], place: Path, folder: Path | None) -> Repeated:
    """Run the command of a record again, in the directory where it ran if that is there, and compare the results.

    Parameters
    ----------
    record : dict
        As `guidebook.workflow.manifest.read_run` returns it.
    place : Path
        Where the record was found.
    folder : Path, optional
        The folder with the results, without which no difference can be told but that there is one.

    Raises
    ------
    ValueError
        If the run names code that is not what it was, or that lies in the folder of its results.
    OSError, ArithmeticError
        As the command itself.
    """
    from guidebook.cli import app  # which imports the commands

    place, folder = place.absolute(), folder and folder.absolute()
    words, here, given = record["command"], Path.cwd(), sys.argv
    with tempfile.TemporaryDirectory(prefix="guidebook-") as temporary:
        again = Path(temporary) / "again"
        try:
            if (directory := record.get("directory")) and Path(directory).is_dir():
                os.chdir(directory)
            _check_code(record, place)
            sys.argv = [given[0], *words]
            with contextlib.redirect_stdout(io.StringIO()):
                status = app([*words, "--out", str(again)], standalone_mode=False)
        finally:
            sys.argv = given
            os.chdir(here)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        return _compared(record, folder, again)


def _check_code(record: dict[str, Any], place: Path) -> None:
    """Raise ValueError unless files with code are what they were, and not from the folder itself."""
    listed = record.get("code")
    known = {each.get("sha256") for each in listed if isinstance(each, dict)} if isinstance(listed, list) else set()
    for function in functions_in(record["command"]):
        if function.path.is_relative_to((place if place.is_dir() else place.parent).resolve()):
            raise ValueError(f"rerun: {place} brings its model along, and what lies in a folder of results is not run")
        if function.sha256 not in known:
            raise ValueError(f"rerun: {function.path} has changed since the run: fit it anew")


def _compared(record: dict[str, Any], before: Path | None, again: Path) -> Repeated:
    """Compare the results of a run with those of its repetition in a folder."""
    now = read_manifest(again)
    assert now is not None
    changed = _changed(record.get("versions") or {}, versions())
    same_data = record["data"].get("sha256") == now["data"]["sha256"]
    same, (largest, where) = now["results"] == record["results"], (0.0, None)
    if not same:
        largest, where = _largest(before, again) if before is not None else (None, None)
        same = largest == 0
    return Repeated(same, _sentence(same, largest, where, changed, same_data), largest, where, changed, same_data)


def _changed(then: dict[str, Any], now: dict[str, str]) -> dict[str, list[str | None]]:
    return {name: [then.get(name), now.get(name)] for name in {**then, **now} if then.get(name) != now.get(name)}


def _sentence(
    same: bool, largest: float | None, where: str | None, changed: dict[str, list[str | None]], same_data: bool
) -> str:
    words = "the run came out the same, bit for bit" if same else "the run did not come out the same"
    if not same:
        if where is not None:
            words += f": the largest difference is {largest:.3g}, in {where}"
        if not same_data:
            words += "; its data are not those of then"
    if changed:
        pairs = ((name, then or "none", now or "none") for name, (then, now) in changed.items())
        words += "; " + ", ".join(f"{name} was {then} and is {now}" for name, then, now in pairs)
    return words + "."


def _largest(before: Path, again: Path) -> tuple[float | None, str | None]:
    """Return the largest difference between two folders and its place; None if numbers have none to compare with."""
    found: list[tuple[float, str]] = []
    for file in sorted(again.glob("*.safetensors")):
        if not (before / file.name).is_file():
            return None, None
        old, new = Posterior.load(before / file.name), Posterior.load(file)
        for group in ("draws", "params"):
            pairs = getattr(old, group), getattr(new, group)
            if {name: value.shape for name, value in pairs[0].items()} != {n: v.shape for n, v in pairs[1].items()}:
                return None, None
            found += [(_distance(value, pairs[1][name]), f"{name} ({file.stem})") for name, value in pairs[0].items()]
    choices = [folder / "choice.json" for folder in (before, again)]
    if all(choice.is_file() for choice in choices):
        found += _of_choices(*(json.loads(choice.read_text("utf-8")) for choice in choices))
    return max(found, key=lambda pair: pair[0], default=(None, None))


def _distance(one: Tensor, other: Tensor) -> float:
    different = (one != other) & ~(one.isnan() & other.isnan())
    return (
        float((one.double() - other.double())[different].abs().nan_to_num(torch.inf).max()) if different.any() else 0.0
    )


def _of_choices(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[float, str]]:
    rows = zip(one["values"], other["values"], strict=False)
    return [
        (abs(a[name] - b[name]), f"{name} at {a['value']}")
        for a, b in rows
        for name in a
        if name not in ("seconds", "value") and isinstance(a[name], float) and isinstance(b.get(name), float)
    ]
