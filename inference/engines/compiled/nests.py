"""Loops over entries of one shape as one nest of C++ loops, the innermost over neighbours in memory."""

from collections.abc import Sequence
from typing import NamedTuple

from .works import Work


class Entry(NamedTuple):
    """What a field of an expression is filled with: a number or a name, or with ``strides`` a pointer to entries."""

    text: str
    strides: tuple[int, ...] | None = None


class Line(NamedTuple):
    """A work whose operands have been found.

    Attributes
    ----------
    name : str
        Of its result within the nest.
    work : Work
    entries : dict of Entry
        By field of the work's expression.
    target : str
        Pointer to where the result is stored; empty if only this nest reads it.
    size : int
        Entries of the result.
    """

    name: str
    work: Work
    entries: dict[str, Entry]
    target: str
    size: int


def nest(lines: Sequence[Line]) -> list[str]:
    """Return C++ that computes all lines in one go; no line reads what another one has summed up."""
    spread = [entry.strides for line in lines for entry in line.entries.values() if entry.strides is not None]
    spread = list(dict.fromkeys([*spread, *(line.work.strides for line in lines if line.target)]))
    sizes, merged = _merged(lines[0].work.shape, spread)
    steps = dict(zip(spread, merged, strict=True))
    body, after, totals = [], [], []
    for line in lines:
        work, name = line.work, line.name
        filled = {
            field: f"(({work.operands[field].kind}) {_at(entry, steps)})" for field, entry in line.entries.items()
        }
        body.append(f"const {work.kind} {name} = {work.expression.format(**filled)};")
        if not line.target:
            continue
        stored = _at(Entry(line.target, work.strides), steps)
        if not work.reduction:
            body.append(f"{stored} = {name};")
        elif sizes and not steps[work.strides][-1]:  # the innermost loop sums up in a register
            totals.append(line)
            body.append(_reduced(work.reduction, f"s{name}", name))
            after.append(_reduced(work.reduction, stored, f"s{name}"))
        else:
            body.append(_reduced(work.reduction, stored, name))
    before = [_filled(line, "= " + _start(line.work)) for line in lines if line.work.reduction]
    outer = [f"for (int i{dim} = 0; i{dim} < {size}; ++i{dim}) {{" for dim, size in enumerate(sizes)]
    if sizes:
        clauses = "".join(f" reduction({line.work.reduction} : s{line.name})" for line in totals)
        starts = [f"{line.work.kind} s{line.name} = {_start(line.work)};" for line in totals]
        outer[-1:] = [*starts, f"#pragma omp simd{clauses}", outer[-1]]
    ends = ["}" * bool(sizes), *after, "}" * (len(sizes) - 1)]
    means = [_filled(line, f"/= {line.work.divisor}") for line in lines if line.work.divisor != 1]
    return ["{", *before, *outer, *body, *ends, *means, "}"]


def _at(entry: Entry, steps: dict[tuple[int, ...], list[int]]) -> str:
    if entry.strides is None:
        return entry.text
    where = " + ".join(f"i{dim} * {step}" for dim, step in enumerate(steps[entry.strides]) if step)
    return f"{entry.text}[{where or 0}]"


def _start(work: Work) -> str:
    return "0" if work.reduction == "+" else "-__builtin_inf()"


def _filled(line: Line, how: str) -> str:
    return f"for (int i = 0; i < {line.size}; ++i) {line.target}[i] {how};"


def _reduced(how: str, total: str, value: str) -> str:
    return f"{total} += {value};" if how == "+" else f"{total} = {total} < {value} ? {value} : {total};"


def _merged(shape: tuple[int, ...], spread: Sequence[tuple[int, ...]]) -> tuple[list[int], list[list[int]]]:
    """Return the sizes of as few loops as possible, and the strides of each access in them."""
    whole = next((strides for strides in spread if all(strides)), spread[0] if spread else ())
    order = sorted(range(len(shape)), key=lambda dim: -abs(whole[dim]))
    sizes: list[int] = []
    merged: list[list[int]] = [[] for _ in spread]
    for dim in order:
        size, steps = shape[dim], [strides[dim] for strides in spread]
        if sizes and all(old[-1] == step * size for old, step in zip(merged, steps, strict=True)):
            sizes[-1] *= size
            for old, step in zip(merged, steps, strict=True):
                old[-1] = step
        else:
            sizes.append(size)
            for old, step in zip(merged, steps, strict=True):
                old.append(step)
    return sizes, merged
