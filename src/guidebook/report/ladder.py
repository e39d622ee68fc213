"""What `fit` has tried and chosen as one self-contained page of HTML."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import plots
from ..inference import FitInfo, Posterior
from ..inference.climb import MOVED
from ..inference.coords import coords as names_in
from ..inference.headline import in_seconds
from ..inference.info import Info
from ..inference.quantities import Coords, informative, scalars
from ..inference.words import number
from ..plots import Section, Table
from ..workflow.files import atomic_write
from . import about
from .made import made
from .render import render

_MOST_ROWS, _MOST_UNFOLDED = 200, 20
_QUANTILES = (0.05, 0.5, 0.95)


def write_ladder(
    posterior: Posterior[FitInfo],
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    data: tuple | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
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
        The model's arguments, for the graph. Arrays and data frames will do.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    identify : callable, optional
        ``draws -> quantities``, as in ``compare``; default: the sites as they are.
    coords : dict of sequences of str, optional
        Names of entries, as in ``compare``. Default: those that come with data frames and series.
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
    if coords is None and model is not None and (data or model_kwargs):
        coords = names_in(model, *(data or ()), model_kwargs=model_kwargs)
    model, data = about.bound("write_ladder", model, data, model_kwargs)
    quantities = posterior.draws if identify is None else identify(posterior.draws)
    parts = [_figures(scalars(quantities, coords)), about.graph(model, data)]
    shown, tried = [part for part in parts if part is not None], rungs_of(info)
    page = render(
        "fit.html.j2",
        title=title or "The cheapest good posterior",
        headline=headline_of(info, info.chosen, info.judgement),
        facts=facts,
        contents=contents(tried, shown),
        judgement=info.judgement,
        sentence=info.message,
        findings=[],
        **tried,
        sections=shown,
        made=made([info.seed]),
    )
    return atomic_write(path, page)


NOTHING_TRIED: dict[str, Any] = {"picture": None, "rungs": []}  # where one method was asked for


def contents(tried: Mapping[str, Any], shown: Sequence[Section]) -> list[str]:
    """Return the headings of a page of a fit."""
    picture = [tried["picture"].title] if tried["picture"] else []
    words = ["What was tried"] if tried["rungs"] else []
    return [*picture, *words, *(section.title for section in shown)]


def headline_of(info: Info, name: str, judgement: str) -> str:
    """Return what a fit came to, in one sentence."""
    after = in_seconds(info.seconds)
    if isinstance(info, FitInfo):
        chosen = info.chosen.removesuffix(MOVED) + (" and short chains" if info.chosen.endswith(MOVED) else "")
        if info.judgement == "good":
            return f"A good posterior in {after}, by {chosen}."
        if len(info.rungs) == 1:
            return f"{chosen} is not known to be good, after {after}."
        return f"No posterior is known to be good after {after}: {chosen} comes nearest."
    if judgement == "point":
        return f"{name} found a point in {after}."
    if judgement in ("good", "usable", "bad"):
        return f"{name} is {judgement}, after {after}."
    return f"{name} took {after}."


def rungs_of(info: FitInfo) -> dict[str, Any]:
    """Return the picture and the words of what was tried, as the template takes them."""
    words = [_words(place, rung, info.chosen) for place, rung in enumerate(info.rungs, 1)]
    return {"picture": _picture(info.rungs), "rungs": words}


def _picture(rungs: Sequence[Mapping[str, Any]]) -> Section | None:
    """Show how far off each rung is, and after how many seconds that was known; None if no such error is known."""
    if all(rung.get("error") is None for rung in rungs):
        return None
    text = (
        "One point per answer: the seconds after which it was there and judged, and the error of its worst quantity by "
        "short chains, which is the shift of the mean in sds, or how far off the sd is (25 % counts as 0.25). Colours "
        "are judgements, which allow for the error of that error."
    )
    if any(rung.get("error") is None and rung["judgement"] in ("good", "cannot say") for rung in rungs):
        text += " Dashed: what has no such error, such as samplers, which are judged by their own chains."
    figure = plots.to_svg(plots.plot_ladder(rungs), "Worst error and seconds of each method that was tried", "errors")
    return Section("Error against seconds", text, [figure], wide=True)


def _words(place: int, rung: Mapping[str, Any], chosen: str) -> dict[str, Any]:
    """Return the words of a rung: its cost and judgement, and why it was left; the page begins with the chosen's."""
    cost = []
    if rung["judgement"] != "not tried":
        cost.append(f"{number(rung['seconds'])} s")
    if rung.get("gradients") is not None:
        cost.append(f"{rung['gradients']:,} gradients")
    if rung.get("error") is not None:
        cost.append(f"worst error {number(rung['error'])} sd")
    is_chosen = rung["method"] == chosen
    words = {
        "method": rung["method"],
        "judgement": rung["judgement"],
        "sentence": "" if is_chosen else rung["sentence"],
    }
    return words | {"place": place, "cost": ", ".join(cost), "chosen": is_chosen}


def figures_table(columns: Sequence[str], rows: Sequence[Sequence[str]], summary: str) -> Table:
    """Return a table of quantities that can be folded away, and is if it is long."""
    return Table(columns, rows, summary, open=len(rows) <= _MOST_UNFOLDED)


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
    return Section("The posterior", f"{text} them.", tables=[figures_table(columns, rows, f"The figures of {count}")])
