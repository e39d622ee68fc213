"""A user's model that fails, in one sentence: where, and what is wrong, without tensors and internals."""

import re
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyro
import torch

MOST_WORDS = 200  # characters of an error's own words
_LIBRARIES = [path for package in (torch, pyro) for path in package.__path__] + [str(Path(__file__).parents[1])]
_OURS = tuple(str(Path(__file__).parents[2] / room) for room in ("models", "guides"))


def explained(method: str, error: BaseException, what: str = "model") -> str:
    """Return why a model or guide cannot be run, from the method's name to the line of the model."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, ValueError) and frames[-1].f_code.co_filename.startswith(_OURS):
        return str(error).split("\nTrace Shapes:")[0]  # a sentence already; below it Pyro lists shapes
    where = user_line(frames)
    return f"{method}: the {what} cannot be run: {words(error)}{where}"


def words(error: BaseException) -> str:
    """Return an error's first sentence, its tensors and classes of internals left out."""
    lines = str(error).strip().split("\n")
    text = lines[0]
    if site := re.search(r"^Error while .* at site '(.*)':", text):  # Pyro puts the reason below
        rest = type(error)("\n".join(lines[1:]))
        return f"{words(rest)}, at site {site.group(1)!r}"
    parameter = re.search(
        r"Expected parameter (\w+) .* of distribution (\w+)\(.* satisfy the constraint (.*?), but", text
    )
    if parameter:
        name, kind, constraint = parameter.groups()
        return f"parameter {name} of {kind} is not {_plain(constraint)}"
    value = re.search(r"Expected value argument .* within the support \((.*)\) of the distribution (\w+)\(", text)
    if value:
        hint = " (what a mask hides must be filled, as by x.nan_to_num())" if re.search(r"\bnan\b", str(error)) else ""
        return f"a value of {value.group(2)} is not {_plain(value.group(1))}{hint}"
    text = re.sub(r"tensor\(.*", "…", text)[:MOST_WORDS].rstrip(" :.")
    if not text and isinstance(error, NotImplementedError):
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        owner = type(frame.f_locals.get("self")).__name__
        return f"{owner} does not implement {frame.f_code.co_name}"
    return text or type(error).__name__


def _plain(constraint: str) -> str:
    """Return a constraint, as torch prints it, in words."""
    text = re.sub(r"Independent(?:Constraint)?\((.*), \d+\)", r"\1", constraint)
    known = {"Real()": "a finite number", "Simplex()": "on the simplex", "PositiveDefinite()": "positive definite"}
    bound = re.match(r"(Integer)?GreaterThan(Eq)?\(lower_bound=([\d.e+-]+)\)", text)
    if bound:
        whole, equal, limit = bound.groups()
        return f"{'an integer ' if whole else ''}{'at least' if equal or whole else 'above'} {limit}"
    return known.get(text, "in its range")


def user_line(frames: Iterable[Any]) -> str:
    """Return the innermost of these frames that is a model's, in brackets; frames run from the outside in."""
    standard = sysconfig.get_paths()["stdlib"]
    for frame in reversed(list(frames)):
        file, line = frame.f_code.co_filename, frame.f_lineno
        is_standard = file.startswith(standard) and "site-packages" not in file
        if is_standard or file.startswith("<") or any(file.startswith(folder) for folder in _LIBRARIES):
            continue
        code = (traceback.extract_stack(frame, limit=1)[0].line or "")[:80]
        return f" ({Path(file).name}, line {line}: {code})"
    return ""
