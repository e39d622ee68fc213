"""A comparison in one sentence: which method gives the reference's answer, and in how many seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .words import listed

if TYPE_CHECKING:
    from .compare import Comparison


def headline(comparison: Comparison) -> str:
    """Return the quickest answer that is as good as the reference's, or that there is none, as a sentence."""
    reference = comparison.reference
    # Draws from elsewhere tell no time.
    seconds = {
        name: math.inf if math.isnan(posterior.info.seconds) else posterior.info.seconds
        for name, posterior in comparison.posteriors.items()
    }
    found: dict[str, list[str]] = {}  # names by judgement, the quickest first
    for name in sorted(seconds, key=lambda name: seconds[name]):
        found.setdefault(comparison.verdicts[name].judgement, []).append(name)
    if comparison.refused is not None:
        for judgement, but in (("good", ""), ("usable", ", not good")):
            if judgement in found:
                best = found[judgement][0]
                after = f" after {in_seconds(seconds[best])}" if math.isfinite(seconds[best]) else ""
                words = f"{judgement}{after}{but}"
                return f"{best} is {words}, by short chains from its own draws."
        if "bad" in found:
            whose = "its" if len(found["bad"]) == 1 else "their"
            return f"{listed(found['bad'])} {_are(found['bad'], 'bad')}, by short chains from {whose} own draws."
        return f"{reference} is not fit to judge the others."
    for judgement, verb, but in (("good", "gives", ""), ("usable", "comes near", ": it is usable, not good")):
        if judgement in found:
            best = found[judgement][0]
            return f"{best} {verb} {reference}'s answer{_in_time(seconds[best], reference, seconds[reference])}{but}."
    if "bad" in found:
        return f"{listed(found['bad'])} {'does' if len(found['bad']) == 1 else 'do'} not give {reference}'s answer."
    if "point" in found:
        return f"{listed(found['point'])} {_are(found['point'], 'a point', 'points')}: only {reference} has a spread."
    others = [name for name in seconds if name != reference]
    return f"{listed(others)} {_are(others, 'not judged')} beside {reference}."


def _in_time(own: float, reference: str, of_reference: float) -> str:
    """Return a method's seconds beside the reference's, as far as they are known: infinite ones are not."""
    if not math.isfinite(own):
        return ""
    if not math.isfinite(of_reference):
        return f" in {in_seconds(own)}"
    beside = " instead of" if own < of_reference else f", where {reference} takes"
    return f" in {in_seconds(own)}{beside} {in_seconds(of_reference)}"


def in_seconds(value: float) -> str:
    """Format a duration to two digits, or to whole seconds: "8.2 s"."""
    if value < 0.01:
        return "less than 0.01 s"
    return f"{value:.2g} s" if value < 99.5 else f"{value:,.0f} s"


def _are(names: Sequence[str], one: str, several: str | None = None) -> str:
    return f"is {one}" if len(names) == 1 else f"are {several or one}"
