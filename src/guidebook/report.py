"""A comparison as one self-contained page of HTML: verdicts, figures, the runs behind them, and the model's graph."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup
from torch import Tensor

from . import plots
from .inference.compare import Comparison
from .inference.info import EmInfo, NutsInfo, SviInfo
from .plots import plot_comparison

__all__ = ["plot_comparison", "write_html", "write_index"]

_MOST_QUANTITIES = 12  # panels of posteriors
_MOST_ROWS = 200  # of a table of quantities
_COLUMNS = {
    "seconds": ("seconds", "Wall-clock time of the fit alone."),
    "elbo": (
        "ELBO",
        "Evidence lower bound in nats, estimated from the guide's draws. Between guides of one model and one data set "
        "the higher is the closer to the posterior in KL(q‖p); for samplers and points there is none.",
    ),
    "k_hat": (
        "k̂",
        "Pareto shape of the importance weights p(x, z)/q(z): below 0.5 good, up to 0.7 usable; above, q misses mass "
        "in the tails. Like the ELBO it cannot see a mode that the guide never visits.",
    ),
    "worst": (
        "worst quantity",
        "Where the posterior is farthest from the reference, a mean shift of 0.25 sd counting as much as an sd "
        "wrong by 25 %. The three figures after it are for this quantity.",
    ),
    "mean_shift_in_sd": ("mean shift", "Difference of the means, in standard deviations of the reference."),
    "sd_ratio": ("sd ratio", "Standard deviation over the reference's: below one the posterior is too sure of itself."),
    "wasserstein_in_sd": (
        "W₁",
        "Wasserstein distance of order one between the two marginal distributions, in standard deviations of the "
        "reference: how far probability has to be moved on average.",
    ),
}
_DETAILS = {
    "mean": "mean",
    "sd": "sd",
    "mean_shift_in_sd": "mean shift",
    "sd_ratio": "sd ratio",
    "wasserstein_in_sd": "W₁",
    "mcse_in_sd": "MCSE, in sd",
    "r_hat": "R̂",
    "ess": "ESS",
}


class Panel(NamedTuple):
    """A figure of a section: the SVG element, and whether it takes the page's width or a column."""

    svg: Markup
    wide: bool = False


class Table(NamedTuple):
    """A table of a section; rows of text, the first cell heads its row. Folded away where ``summary`` names it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    summary: str = ""


class Section(NamedTuple):
    """A part of the page: its heading, how to read it, and what it shows."""

    title: str
    text: str
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = ()
    legend: bool = False
    note: str = ""


def write_html(
    comparison: Comparison,
    path: str | Path,
    *,
    model: Callable[..., Any] | None = None,
    data: tuple | None = None,
    columns: Sequence[str] | None = None,
    title: str | None = None,
) -> Path:
    """Write a comparison as one HTML file that needs no other file, no script and no network.

    Parameters
    ----------
    comparison : Comparison
        What ``compare`` returned.
    path : str or Path
        Where to; parent folders are made. The file is replaced whole or not at all.
    model : callable, optional
        The Pyro model, options bound with ``functools.partial``; for its name and graph.
    data : tuple, optional
        Its arguments; for the graph and for what is drawn over the data.
    columns : sequence of str, optional
        Names of the columns of the data, for axes.
    title : str, optional
        The page's; the model and the reference where left out.

    Returns
    -------
    Path
        Where the file is.

    Raises
    ------
    OSError
        If the path cannot be written.
    ValueError
        If ``columns`` does not have a name a column of the data.
    """
    data = (data,) if isinstance(data, Tensor) else data
    labels = _column_labels(columns, data)
    reference = comparison.reference
    parts = [
        _posteriors(comparison, labels),
        _pairs(comparison),
        _mixture(comparison, data, labels),
        _losses(comparison),
        _objectives(comparison),
        _chains(comparison),
        _graph(model, data),
        _runs(comparison),
    ]
    name = _model_name(model)
    page = _render(
        "report.html.j2",
        title=title or f"{name[0] + ': p' if name else 'P'}osteriors compared with {reference}",
        facts=_facts(comparison, model, name, data),
        verdicts=[(n, v.judgement, v.sentence) for n, v in comparison.verdicts.items()],
        columns=_COLUMNS,
        rows=[_row(name, row) for name, row in comparison.table.iterrows()],
        sections=[part for part in parts if part is not None],
        legend=_legend(comparison),
        versions=[(package, version(package)) for package in ("guidebook", "pyro-ppl", "torch")],
    )
    return _write(Path(path), page)


def write_index(reports: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write a page that lists several reports with their verdicts and links to them.

    Parameters
    ----------
    reports : sequence of mapping
        For each report ``title``; ``href``, a link relative to this page; ``verdicts``, pairs of judgement and
        sentence (``comparison.verdicts.values()``); and, optionally, ``rows``: mappings with ``method`` and the
        columns of ``comparison.table`` (``comparison.table.reset_index().to_dict("records")``).
    path : str or Path
        Where to; parent folders are made. The file is replaced whole or not at all.

    Returns
    -------
    Path
        Where the file is.

    Raises
    ------
    OSError
        If the path cannot be written.
    KeyError
        If a report lacks a title, a link or verdicts.
    """
    entries = [
        {
            "title": report["title"],
            "href": report["href"],
            "verdicts": [tuple(verdict) for verdict in report["verdicts"]],
            "rows": [_row(row.get("method", ""), row) for row in report.get("rows", ())],
        }
        for report in reports
    ]
    page = _render("index.html.j2", title="Posteriors compared", reports=entries, columns=_COLUMNS)
    return _write(Path(path), page)


def _posteriors(comparison: Comparison, labels: Sequence[str] | None) -> Section | None:
    order = plots.worst_first(comparison)
    shown = order[:_MOST_QUANTITIES]
    if not shown:
        return None
    names = ", ".join(comparison.posteriors)
    panels = [
        Panel(
            plots.to_svg(
                plots.plot_quantity(comparison, label, _with_column(comparison, label, labels)),
                f"Posterior densities of {label} under {names}",
                f"q{i}",
            )
        )
        for i, label in enumerate(shown)
    ]
    left = len(order) - len(shown)
    note = (
        f"{left} more {'quantity is' if left == 1 else 'quantities are'} not drawn; their figures are below."
        if left
        else ""
    )
    tables = [_quantities(name, frame.loc[order]) for name, frame in comparison.quantities.items()]
    return Section(
        "Marginal posteriors",
        f"One panel a quantity, those first on which the methods differ most. The grey area is {comparison.reference}, "
        "lines are the others, upright lines are points without a spread. A line narrower than the area promises too "
        "much; one beside it is biased. Narrow peaks are cut off at four times the reference's height.",
        panels,
        tables,
        legend=True,
        note=note,
    )


def _quantities(name: str, frame: pd.DataFrame) -> Table:
    rows = [
        [str(label), *(_number(row[column]) for column in _DETAILS)] for label, row in frame[:_MOST_ROWS].iterrows()
    ]
    count = f"{len(frame)} quantities" if len(frame) <= _MOST_ROWS else f"{_MOST_ROWS} of {len(frame)} quantities"
    return Table(["quantity", *_DETAILS.values()], rows, f"{name}: the figures of {count}")


def _pairs(comparison: Comparison) -> Section | None:
    order = plots.worst_first(comparison)
    if not order or comparison.posteriors[comparison.reference].info.is_point:
        return None
    other = plots.companion(comparison, order[0])
    if other is None:
        return None
    svg = plots.to_svg(
        plots.plot_pair(comparison, order[0], other),
        f"Joint posterior of {order[0]} and {other} under {', '.join(comparison.posteriors)}",
        "pair",
    )
    return Section(
        "Joint posterior",
        f"{order[0]}, the quantity on which the methods differ most, against {other}, the one most correlated with it "
        f"under {comparison.reference} (its draws are the dots). Each ellipse holds 90 % of the normal distribution "
        "with a posterior's mean and covariance. An ellipse that stays upright where the dots are aslant ignores the "
        "correlation, and that is what makes it narrow.",
        [Panel(svg, wide=True)],
        legend=True,
    )


def _mixture(comparison: Comparison, data: tuple | None, labels: Sequence[str] | None) -> Section | None:
    x, mixtures = _matrix(data), plots.mixtures_of(comparison.posteriors)
    first = mixtures.get(comparison.reference)
    if x is None or first is None or x.shape[1] != first.loc.shape[1]:
        return None
    chosen = plots.separating_columns(first)
    first_axis, second_axis = (labels[c] if labels else f"column {c}" for c in chosen)
    panels = [
        Panel(
            plots.to_svg(
                figure,
                f"Components of the mixture under {name} over {first_axis} and {second_axis} of the data",
                f"mixture{i}",
            )
        )
        for i, (name, figure) in enumerate(plots.plot_mixtures(mixtures, x, chosen, (first_axis, second_axis)).items())
    ]
    return Section(
        "Components of the mixture",
        "The data in the two columns that separate the components best. Each ellipse holds 90 % of a component at the "
        "posterior mean of its parameters, with a thicker line where its weight is larger; a colour marks the "
        "component closest to the reference's. Exchanging components changes nothing, so that there are K! equal "
        "modes; k̂ and the ELBO see only the one that a guide is in.",
        panels,
    )


def _losses(comparison: Comparison) -> Section | None:
    looks = plots.looks(comparison)
    runs = {n: p.info for n, p in comparison.posteriors.items() if isinstance(p.info, SviInfo) and len(p.info.losses)}
    if not runs:
        return None
    panels = [
        Panel(
            plots.to_svg(
                plots.plot_losses(name, info, looks[name]), f"Negative loss of {name} at each step", f"elbo{i}"
            )
        )
        for i, (name, info) in enumerate(runs.items())
    ]
    return Section(
        "Convergence of variational inference",
        "The negative loss against steps of the optimiser: faint, one noisy estimate a step; bold, the running mean "
        "over a fiftieth of the run. It should have become level. The first steps lie below the frame where they would "
        "flatten the rest. A point's loss is a log joint density and not a bound: do not compare it with an ELBO.",
        panels,
    )


def _objectives(comparison: Comparison) -> Section | None:
    looks = plots.looks(comparison)
    runs = {n: p.info for n, p in comparison.posteriors.items() if isinstance(p.info, EmInfo)}
    if not runs:
        return None
    panels, tables = [], []
    for i, (name, info) in enumerate(runs.items()):
        if len(info.objective):
            figure = plots.plot_objective(name, info, looks[name])
            panels.append(Panel(plots.to_svg(figure, f"Log likelihood of {name} after each iteration", f"em{i}")))
        basins = [
            [
                _nats(basin["objective"]),
                str(basin["restarts"]),
                "an optimum" if basin["flaw"] is None else f"set aside: {basin['flaw']}",
            ]
            for basin in info.basins
        ]
        tables.append(Table([f"{name} ended at, nats", "restarts", "which is"], basins))
    return Section(
        "Convergence of expectation maximisation",
        "The objective of the best restart after each iteration; it never falls. The table says where all restarts "
        "ended (dotted lines, where they are in the frame): several optima mean that a single start would not have "
        "been enough, and a degenerate one is a likelihood without bound, not a better fit.",
        panels,
        tables,
    )


def _chains(comparison: Comparison) -> Section | None:
    rows = []
    for name, posterior in comparison.posteriors.items():
        info, frame = posterior.info, comparison.quantities[name]
        if not isinstance(info, NutsInfo):
            continue
        chains, length = next(iter(posterior.draws.values())).shape[:2]
        rows.append(
            [
                name,
                f"{chains} × {length}",
                str(info.num_warmup),
                _number(frame["r_hat"].max(), 4),
                _number(frame["ess"].min()),
                str(int(info.divergences.sum())),
                _number(float(info.accept_prob.mean())),
                ", ".join(_number(float(size)) for size in info.step_size),
            ]
        )
    if not rows:
        return None
    heads = ["method", "chains × draws", "warm-up", "worst R̂", "least ESS", "divergences", "acceptance", "step sizes"]
    return Section(
        "Chains of the No-U-Turn sampler",
        "R̂ compares the variance between chains with that within them and should be at most 1.01 for every quantity; "
        "ESS, the bulk effective sample size, should be at least 400 in all; a divergence marks a region that the "
        "sampler could not enter. Both are taken on the quantities compared, not on raw sites, whose order of "
        "components may differ between chains.",
        tables=[Table(heads, rows)],
    )


def _graph(model: Callable[..., Any] | None, data: tuple | None) -> Section | None:
    if model is None or data is None:
        return None
    title = "The model's graph"
    try:
        graph = plots.model_graph(model, data)
    except Exception as error:  # any model may come here, and Pyro's tracing does not take all of them
        words = " ".join(str(error).split())[:200]
        return Section(title, f"It could not be traced: {type(error).__name__}: {words}")
    if not graph.nodes:
        return None
    if len(graph.nodes) > plots.MOST_NODES:
        return Section(title, f"The model has {len(graph.nodes)} sites, too many to draw.")
    parameters = any(kind == "parameter" for kind, _ in graph.nodes.values())
    return Section(
        title,
        "Each ellipse is a site with its distribution, and an arrow leads from what a distribution depends on to it. "
        "Shaded sites are observed, white ones latent, dashed ones computed from others; a box is a plate, whose "
        f"content is repeated as often as it says.{' Names without an ellipse are parameters.' if parameters else ''}",
        [Panel(plots.to_svg(plots.plot_graph(graph), _graph_words(graph), "graph"), wide=True)],
    )


def _graph_words(graph: plots.Graph) -> str:
    parents = {child: [p for p, c in graph.edges if c == child] for child in graph.nodes}
    lines = [f"{child} depends on {', '.join(above)}" for child, above in parents.items() if above]
    return "Graph of the model: " + ("; ".join(lines) or ", ".join(graph.nodes))


def _runs(comparison: Comparison) -> Section:
    rows = [
        [name, p.info.method, p.info.engine, str(p.info.seed), _number(p.info.seconds), p.info.stopped_because]
        for name, p in comparison.posteriors.items()
    ]
    return Section(
        "How each run went",
        "The same seed on the same machine and the same versions gives the same figures again.",
        tables=[Table(["method", "kind", "engine", "seed", "seconds", "how it ended"], rows)],
    )


def _facts(
    comparison: Comparison, model: Callable[..., Any] | None, name: tuple[str, str] | None, data: tuple | None
) -> list[tuple[str, str]]:
    facts = []
    if name:
        facts.append(("Model", f"{name[0]} {name[1]}".strip()))
    if data is not None:
        facts.append(("Data", _data_words(model, data)))
    others = [n for n in comparison.posteriors if n != comparison.reference]
    facts.append(("Reference", comparison.reference))
    facts.append(("Compared with it", ", ".join(others)))
    facts.append(("Quantities", str(len(comparison.quantities[comparison.reference]))))
    return facts


def _model_name(model: Callable[..., Any] | None) -> tuple[str, str] | None:
    """Name of a model and the options bound to it, in words."""
    if model is None:
        return None
    options: dict[str, Any] = {}
    while isinstance(model, functools.partial):
        options = {**model.keywords, **options}
        model = model.func
    function = model if hasattr(model, "__qualname__") else type(model)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}"
    name = re.sub(r"^guidebook\.models\.(\w+)\.(?:\w+\.)*", r"\1.", name).removeprefix("__main__.")
    words = [f"{option}={value}" for option, value in options.items() if isinstance(value, str | int | float | bool)]
    return name, f"({', '.join(words)})" if words else ""


def _data_words(model: Callable[..., Any] | None, data: tuple) -> str:
    try:
        names = list(inspect.signature(model).parameters) if model is not None else []
    except (TypeError, ValueError):
        names = []
    names += [f"argument {i + 1}" for i in range(len(names), len(data))]
    tensors = [(name, value) for name, value in zip(names, data, strict=False) if isinstance(value, Tensor)]
    return ", ".join(f"{name}: {' × '.join(map(str, v.shape)) or 'a number'}" for name, v in tensors) or "none"


def _matrix(data: tuple | None) -> Tensor | None:
    return next((v for v in data or () if isinstance(v, Tensor) and v.dim() == 2 and not v.is_sparse), None)


def _column_labels(columns: Sequence[str] | None, data: tuple | None) -> Sequence[str] | None:
    x = _matrix(data)
    if columns is None or x is None:
        return None
    if len(columns) != x.shape[1]:
        raise ValueError(f"write_html: {len(columns)} names for {x.shape[1]} columns")
    return [str(column) for column in columns]


def _with_column(comparison: Comparison, label: str, labels: Sequence[str] | None) -> str:
    """The label of a quantity, and for the means and sds of a mixture the column of the data that it is about."""
    site, _, index = label.rstrip("]").partition("[")
    indices = index.split(",")
    if labels is None or site not in ("loc", "scale") or len(indices) != 2:
        return label
    if "weights" not in comparison.posteriors[comparison.reference].draws or int(indices[1]) >= len(labels):
        return label
    column = labels[int(indices[1])]
    return f"{label}, {column if len(column) <= 24 else column[:23] + '…'}"


def _legend(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Name, colour and dash pattern of every posterior; no pattern for the reference, which is an area."""
    entries = []
    for name, look in plots.looks(comparison).items():
        pattern = "0" if look.dash == "-" else " ".join(str(1.6 * length) for length in look.dash[1])
        entries.append((name, look.colour, "" if name == comparison.reference else pattern))
    return entries


def _row(name: Any, row: Any) -> dict[str, str]:
    """A row of a comparison's table as text."""
    cells = {column: _number(row.get(column)) for column in _COLUMNS if column not in ("worst", "elbo")}
    return {
        "method": str(name),
        "judgement": str(row.get("judgement") or ""),
        **cells,
        "elbo": _nats(row.get("elbo")),
        "worst": str(row.get("worst") or "–"),
    }


def _number(value: Any, digits: int = 3) -> str:
    """Three significant digits, whole numbers in full; a dash where there is no figure."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = float(value) + 0.0  # no minus before a zero
    size = abs(value)
    if size and size < 1e-4:
        text = f"{value:.{digits - 1}e}"
    elif size >= 10 ** (digits - 1):
        text = f"{value:,.0f}"
    else:
        places = digits - 1 - (math.floor(math.log10(size)) if size else 0)
        text = f"{value:.{places}f}"
        text = f"{value:.{places - 1}f}" if places > 0 and len(text.lstrip("-0.").replace(".", "")) > digits else text
    return text.replace("-", "−")


def _nats(value: Any) -> str:
    """A log density, to a tenth: differences of a nat matter however large it is."""
    if value is None or not math.isfinite(value):
        return _number(value)
    return f"{value:,.1f}".replace("-", "−")


def _render(template: str, **values: Any) -> str:
    folder = files("guidebook") / "templates"
    sources = {name: (folder / name).read_text(encoding="utf-8") for name in ("report.html.j2", "index.html.j2")}
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(**values)


def _write(path: Path, text: str) -> Path:
    """Replace a file whole: written beside it first, and renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path
