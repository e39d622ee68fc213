"""Stored comparisons as one page in which a reader picks the model, the method and the quantity to look at."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from .. import plots
from ..inference.compare import Comparison
from ..inference.verdict import GOOD_SHIFT, USABLE_SHIFT, distance
from ..workflow.files import atomic_write
from .made import made
from .render import render

MOST_QUANTITIES = 40  # per comparison, those first in which the methods differ most
_SIZE = 81  # values of a curve
_TALLEST = 5000  # where the reference's peak is 1000: taller ones are cut off


def marginal_curves(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the marginal distributions of a comparison as JSON can hold them.

    Returns
    -------
    list of dict
        Per quantity, at most `MOST_QUANTITIES`, those first in which the methods differ most: ``quantity``, its name
        with numbers; ``label``; ``low`` and ``high``, ends of the grid; ``curves``, heights by method at 81 equally
        spaced values, in thousandths of the reference's peak; ``points``, by method, the value of what has no spread.
    """
    return [_curves(comparison, label) for label in plots.worst_first(comparison)[:MOST_QUANTITIES]]


def _curves(comparison: Comparison, label: str) -> dict[str, Any]:
    grid, found = plots.marginals(comparison, label, _SIZE)
    densities = {name: marginal.density for name, marginal in found.items() if marginal.density is not None}
    tallest = densities.get(comparison.reference, np.concatenate([*densities.values(), np.ones(1)])).max()
    heights = {name: np.clip(1000 * curve / tallest, 0, _TALLEST).round() for name, curve in densities.items()}
    return {
        "quantity": comparison.numbered[label],
        "label": label,
        "low": float(f"{grid[0]:.6g}"),
        "high": float(f"{grid[-1]:.6g}"),
        "curves": {name: curve.astype(int).tolist() for name, curve in heights.items()},
        "points": {name: float(f"{marginal.centre:.6g}") for name, marginal in found.items() if marginal.is_point},
    }


def write_explorer(
    comparisons: Sequence[Mapping[str, Any]],
    path: str | Path,
    *,
    ladders: Sequence[Mapping[str, Any]] = (),
    command: str | None = None,
) -> Path:
    """Write stored comparisons as one HTML file that needs no server, other file or network; return its path.

    Parameters
    ----------
    comparisons : sequence of mapping
        Each what ``guidebook compare --json`` prints, and ``marginals``, the result of `marginal_curves`; without
        those, or with those of another comparison, curves are normals with each method's mean and standard deviation.
    path : str or Path
        As for `write_html`.
    ladders : sequence of mapping
        What ``guidebook fit --json`` prints: shown with comparisons of the same model and data.
    command : str, optional
        The command that makes the page, for its foot.

    Raises
    ------
    ValueError
        If there is nothing to show.
    OSError
        If the path cannot be written.
    """
    entries: dict[str, dict[str, Any]] = {}
    for record in comparisons:
        entries[_title(record, entries)] = _entry(record)
    for record in ladders:
        title = f"{record['model']} on {record['data']}"
        if "ladder" in entries.get(title, {}):
            title = _title(record, entries)
        entries.setdefault(title, {"methods": [], "quantities": []})["ladder"] = _ladder(record)
    if not entries:
        raise ValueError("explore: there is no comparison to show")
    values = {"entries": entries, "good": GOOD_SHIFT, "usable": USABLE_SHIFT}
    data = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    about_page = {"title": "Explorer of posteriors", "made": made(command=command)}
    page = render("explorer.html.j2", **about_page, data=Markup(data.replace("<", "\\u003c")))  # closes no script
    return atomic_write(path, page)


def _title(record: Mapping[str, Any], taken: Mapping[str, Any]) -> str:
    title = f"{record['model']} on {record['data']}"
    again = sum(name == title or name.startswith(f"{title} (") for name in taken)
    return f"{title} ({again + 1})" if again else title


def _entry(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page needs of a comparison."""
    curves = record.get("marginals")
    if not curves or _are_of_another(curves, record["methods"]):
        curves = [{"quantity": name, "label": name} for name in _farthest(record["methods"])[:MOST_QUANTITIES]]
    methods = [
        _method(method, record["reference"], [curve["quantity"] for curve in curves]) for method in record["methods"]
    ]
    return {
        "reference": record["reference"],
        "headline": record.get("headline", ""),
        "methods": methods,
        "quantities": curves,
    }


def _are_of_another(curves: Sequence[Mapping[str, Any]], methods: Sequence[Mapping[str, Any]]) -> bool:
    """Whether curves are those of an earlier comparison in the same folder: of other quantities, or other methods."""
    names = {method["name"] for method in methods}
    return any(
        not {*curve["curves"], *curve["points"]} <= names
        or any(curve["quantity"] not in method["quantities"] for method in methods)
        for curve in curves
    )


def _farthest(methods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the quantities, those first in which some method is farthest from the reference."""
    errors: dict[str, float] = {}
    for method in methods:
        for name, figures in method["quantities"].items():
            errors[name] = max(errors.get(name, 0.0), _error(figures) or 0.0)
    return sorted(errors, key=lambda name: -errors[name])


def _error(figures: Mapping[str, Any]) -> float | None:
    """Return how far off a quantity is: the shift of its mean in sds, or how far off the sd is, 25 % being 0.25."""
    frame = pd.DataFrame({name: [figures[name]] for name in ("mean_shift_in_sd", "sd_ratio")}, dtype=float)
    value = USABLE_SHIFT * float(distance(frame).max())
    return value if math.isfinite(value) else None


def _method(method: Mapping[str, Any], reference: str, quantities: Sequence[str]) -> dict[str, Any]:
    worst = method["worst"]
    is_known = method["name"] != reference and method["judgement"] != "not judged"
    figures = {name: method["quantities"][name] for name in quantities}
    return {
        "name": method["name"],
        "seconds": method["seconds"],
        "elbo": method["elbo"],
        "k": method["k_hat"],
        "judgement": method["judgement"],
        "sentence": method["verdict"],
        "error": _error(worst) if is_known else None,
        "worst": worst.get("label", worst["quantity"]),
        "shifts": [figure["mean_shift_in_sd"] for figure in figures.values()],
        "ratios": [figure["sd_ratio"] for figure in figures.values()],
    }


def _ladder(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("method", "seconds", "judgement", "error", "sentence")
    rungs = [{key: rung.get(key) for key in kept} for rung in record["rungs"]]
    return {"chosen": record["chosen"], "sentence": record["sentence"], "rungs": rungs}
