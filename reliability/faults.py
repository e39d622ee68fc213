"""What becomes of a fit by each method when something goes wrong, as the page ``docs/faults.md`` has it.

``python -m reliability.faults`` writes the page, and with ``--check`` compares it; ``--only em gibbs`` does so for some
methods. A cell is in order if the fit goes on or begins anew to the numbers of one that was left alone, bit for bit, if
it is refused in one sentence, or if it ends as it is told to.
"""

import argparse
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from guidebook.inference import Posterior

from . import broken, nan
from .broken import DAMAGES, RAW, WRONG, Outcome
from .fits import SHORT

PAGE = Path(__file__).parents[1] / "docs" / "faults.md"
WORDS = {
    "svi": "run logistic --method svi:mean_field",
    "em": "run gmm --method em",
    "cavi": "run gmm --method cavi",
    "gibbs": "run gmm --method gibbs",
    "mcem": "run ppca --method mcem",
    "closed_form": "run linear --method closed_form",
    "fit": "fit logistic",
    "nuts": "run logistic --method nuts --chains 1 --draws 20 --warmup 30",
    "nuts compiled": "run logistic --method nuts --chains 2 --draws 600 --warmup 600",
    "hmc": "run logistic --method hmc --chains 1 --draws 20 --warmup 30",
    "metropolis": "run logistic --method metropolis --chains 1 --draws 20 --warmup 30",
}
FAULTS = (
    *("kill -9", "SIGTERM", "Ctrl-C", "a full disk"),
    *(f"its last state: {name}" for name in DAMAGES),
    "another fit's checkpoint",
    *(f"its saved posterior: {name}" for name in DAMAGES),
    "NaN in the loss",
)
Table = dict[tuple[str, str], Outcome]


def outcomes(method: str) -> Table:
    """Return the outcome of every fault, by its name and the method's."""
    with tempfile.TemporaryDirectory() as place, broken.quiet():
        found = _of_states(method, SHORT[method](), Path(place))
    words = WORDS.get(method, f"run logistic --method {method}")
    for name, number in (("SIGTERM", signal.SIGTERM), ("Ctrl-C", signal.SIGINT)):
        found[name] = broken.signalled(words, number)
    found["NaN in the loss"] = broken.not_a_number(nan.CASES[method], method.split()[0])
    return {(fault, method): found[fault] for fault in FAULTS}


def _of_states(method: str, expected: Posterior, folder: Path) -> dict[str, Outcome]:
    """Return the outcomes of faults of checkpoints and saved files."""
    case = SHORT[method]
    faults: dict[str, Callable[[], Outcome]] = {"kill -9": lambda: broken.killed(method, expected, folder)}
    for name, damage in DAMAGES.items():
        faults[f"its last state: {name}"] = partial(broken.damaged, case, expected, folder, damage)
        faults[f"its saved posterior: {name}"] = partial(broken.saved, expected, damage)
    faults["another fit's checkpoint"] = lambda: broken.another_fit(case, folder)
    faults["a full disk"] = lambda: broken.full_disk(case, expected)
    return {name: work() for name, work in faults.items()}


def table(methods: Iterable[str]) -> Table:
    """Return the outcomes of all faults for some methods."""
    return {cell: found for method in methods for cell, found in outcomes(method).items()}


BEGINNING = """# What becomes of a fit when something goes wrong

Every fault below was done to a small fit by every method; `nuts` is Pyro's sampler here, and `nuts compiled` NumPyro's.

| in the table | what happens |
|---|---|
| goes on | the same call again goes on from within the fit, to the numbers of a fit left alone, bit for bit |
| begins anew | the same call again begins from the start, with the same numbers, bit for bit |
| the same | a warning says what is wrong, and the fit ends with the same numbers, bit for bit |
| a sentence | refused in one sentence |
| ends | the command says "interrupted", exits with 143 (SIGTERM) or 130 (Ctrl-C), and leaves no file |
| smaller steps | a warning says where it happened; steps of a tenth of the size go on from the best parameters before |
| not drawn | no draw lies where the density is not a number |
| a warning | the guide reaches to where the density is not a number, and a warning says so |

A damaged state, or a disk without room for one, costs the seconds since the state before. NaN comes from a density that
is not a number in a part of the space (`em`, `cavi` and `gibbs`: from an update that returns NaN; `closed_form`: from a
solution that is NaN).

`python -m reliability.faults` writes this page, and the tests hold it against what happens.
[Checkpoints](checkpoints.md) has what is kept by which method, and `make reliability` kills fits and commands at random
moments.

"""
SAID = "## What is said"


def markdown(found: Table) -> str:
    """Return the page: what becomes of which method by which fault, and what is said."""
    methods = list(dict.fromkeys(method for _, method in found))
    lines = [f"| | {' | '.join(f'`{method}`' for method in methods)} |", f"|---|{'---|' * len(methods)}"]
    for fault in FAULTS:
        lines.append(f"| {fault} | {' | '.join(found[fault, method].kind for method in methods)} |")
    lines += ["", SAID, "", "| by | sentence |", "|---|---|"]
    sentences: dict[tuple[str, str], None] = {}
    for (fault, method), one in found.items():
        if one.words and fault in ("a full disk", "NaN in the loss"):
            sentences[f"`{method}`: {fault}", _escaped(one.words)] = None
        elif one.words:
            sentences[fault, _escaped(one.words.removeprefix(f"{method.split()[0]}: "))] = None
    lines += [f"| {by} | {sentence} |" for by, sentence in sentences]
    return BEGINNING + "\n".join(lines) + "\n"


def _escaped(sentence: str) -> str:
    """Return a sentence for a table, without figures that differ between machines."""
    return re.sub(r"\d+\.\d+(e-?\d+)?", "…", sentence).replace("|", "\\|")


def _cells(page: str) -> dict[tuple[str, str], str]:
    """Return the kinds in the table of a page, by fault and method."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.partition(SAID)[0].splitlines()]
    head = next(row for row in rows if row[0] == "" and len(row) > 1)
    methods = [name.strip("`") for name in head[1:]]
    return {
        (row[0], method): cell
        for row in rows
        if row[0] in FAULTS
        for method, cell in zip(methods, row[1:], strict=True)
    }


def main() -> int:
    """Write the page, or compare it; exit with 1 if any cell is out of order, and say which."""
    parser = argparse.ArgumentParser(prog="python -m reliability.faults", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the page instead of writing it")
    parser.add_argument("--only", nargs="+", choices=SHORT, metavar="METHOD", help="methods; default: all")
    given = parser.parse_args()
    methods = given.only or list(SHORT)
    found = table(methods)
    bad = [
        f"{fault}, {method}: {one.kind}: {one.words}"
        for (fault, method), one in found.items()
        if one.kind in (RAW, WRONG)
    ]
    if given.check:
        said = _cells(PAGE.read_text(encoding="utf-8"))
        bad += [f"{fault}, {method}: {one.kind}, and {PAGE.name} says {said.get((fault, method))}"
                for (fault, method), one in found.items() if one.kind != said.get((fault, method))]  # fmt: skip
    elif len(methods) == len(SHORT):
        PAGE.write_text(markdown(found), encoding="utf-8")
    else:
        print(markdown(found))
    print(*bad, sep="\n", end="\n" if bad else "")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
