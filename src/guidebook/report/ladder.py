"""What `fit` has tried and chosen as one self-contained page of HTML."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import plots
from ..inference import FitInfo, Posterior
from ..inference.quantities import Coords, informative, scalars
from ..plots import Section, Table
from ..workflow.files import atomic_write
from . import about
from .render import render
from .words import number

_MOST_ROWS = 200
_QUANTILES = (0.05, 0.5, 0.95)


def write_ladder(
    posterior: Posterior[FitInfo],
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    data: tuple | None = None,
    identify: Callable[..., dict[str, Tensor]] | None = None,
    coords: Coords | None = None,
    title: str | None = None,
    facts: Sequence[tuple[str, str]] = (),
) -> Path:
    """Write what ``fit`` returned as one HTML file that needs no other file, script or network; return its path.

    Parameters
    ----------
    posterior : Posterior
        The result of `guidebook.inference.fit`.
    path : str or Path
        File to write; parent folders are created. An existing file is replaced whole or not at all.
    model : callable, optional
        The Pyro model, for its graph.
    data : tuple, optional
        The model's arguments, for the graph.
    identify : callable, optional
        ``draws -> quantities``, as in ``compare``; default: the sites as they are.
    coords : dict of sequences of str, optional
        Names of entries, as in ``compare``.
    title : str, optional
    facts : sequence of (str, str)
        Terms and words for the head of the page.

    Raises
    ------
    OSError
        If the path cannot be written.
    ValueError
        If the posterior is not one that ``fit`` returned.
    """
    info = posterior.info
    if not isinstance(info, FitInfo):
        raise ValueError(f"write_ladder: give what fit returned; this posterior is by {info.method}")
    quantities = posterior.draws if identify is None else identify(posterior.draws)
    sections = [_figures(scalars(quantities, coords)), about.graph(model, data)]
    page = render(
        "ladder.html.j2",
        title=title or "The cheapest good posterior",
        facts=[*facts, ("Chosen", info.chosen), ("Seconds", f"{number(info.seconds)}, of all that was tried")],
        judgement=info.judgement,
        sentence=info.message,
        **rungs_of(info),
        sections=[section for section in sections if section is not None],
        versions=[(package, version(package)) for package in ("guidebook", "pyro-ppl", "torch")],
    )
    return atomic_write(path, page)


def rungs_of(info: FitInfo) -> dict[str, Any]:
    """Return the picture and the words of what was tried, as the template takes them."""
    words = [_words(place, rung, info.chosen) for place, rung in enumerate(info.rungs, 1)]
    return {"picture": _picture(info.rungs), "rungs": words}


def _picture(rungs: Sequence[Mapping[str, Any]]) -> Section:
    """Show how far off each rung is, and after how many seconds that was known; or say why it is not."""
    title = "Error against seconds"
    if all(rung.get("error") is None for rung in rungs):
        return Section(title, "Nothing that was tried has a known error: what is said of each tells why.")
    text = (
        "One point per answer: the seconds after which it was there and judged, and the error of its worst quantity by "
        "short chains, which is the shift of the mean in sds, or how far off the sd is (25 % counts as 0.25). Colours "
        "are judgements, which allow for the error of that error."
    )
    if any(rung.get("error") is None and rung["judgement"] in ("good", "cannot say") for rung in rungs):
        text += " Dashed: what has no such error, such as samplers, which are judged by their own chains."
    figure = plots.to_svg(plots.plot_ladder(rungs), "Worst error and seconds of each method that was tried", "errors")
    return Section(title, text, [figure], wide=True)


def _words(place: int, rung: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """Return the words of a rung: what it cost, its judgement, and why it was left."""
    cost = []
    if rung["judgement"] != "not tried":
        cost.append(f"{number(rung['seconds'])} s")
    if rung.get("gradients") is not None:
        cost.append(f"{rung['gradients']:,} gradients")
    if rung.get("error") is not None:
        cost.append(f"worst error {number(rung['error'])} sd")
    words = {key: rung[key] for key in ("method", "judgement", "sentence")}
    return words | {"place": place, "cost": ", ".join(cost), "chosen": rung["method"] == chosen}


def _figures(draws: Mapping[str, Tensor]) -> Section:
    """List mean, sd and quantiles of every quantity that varies, or of all if none does."""
    kept = informative(dict(draws)) or list(draws)
    rows = []
    for name in kept[:_MOST_ROWS]:
        values = draws[name].flatten()
        varies = bool((values != values[0]).any())
        spread = [float(values.std()), *torch.quantile(values, values.new_tensor(_QUANTILES)).tolist()]
        rows.append([name, number(float(values.mean())), *map(number, spread if varies else [None] * 4)])
    count = f"{len(rows)} of {len(kept)} quantities" if len(rows) < len(kept) else f"{len(kept)} quantities"
    columns = ["quantity", "mean", "sd", *(f"{100 * q:.0f} %" for q in _QUANTILES)]
    text = (
        "Mean, standard deviation and quantiles of the draws, free of labels, signs and rotations where the model has"
    )
    return Section("The posterior", f"{text} them.", tables=[Table(columns, rows, f"The figures of {count}")])
