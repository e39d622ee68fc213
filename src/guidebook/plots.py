"""Figures of posteriors, of the runs that made them and of the model itself; matplotlib without pyplot.

Every function returns a figure of its own. Nothing is kept between calls: no current figure, no changed setting.
"""

from __future__ import annotations

import io
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib as mpl
import networkx as nx
import numpy as np
import torch
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve
from matplotlib.ticker import MaxNLocator
from pyro import poutine
from pyro.infer.inspect import get_model_relations
from pyro.poutine.messenger import Messenger
from scipy.stats import gaussian_kde
from sklearn.isotonic import isotonic_regression
from torch import Tensor

from .inference.compare import Comparison
from .inference.draws import is_deterministic
from .inference.info import EmInfo, SviInfo
from .inference.isolate import isolated
from .inference.posterior import Posterior
from .inference.verdict import USABLE_RATIO, USABLE_SHIFT

MOST_NODES = 40  # of a model's graph that a page can show
_PANEL = (3.5, 2.5)  # inches
_GREY, _INK = "#aab4c0", "#27313c"
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0568c", "#c48a00", "#3d9bd1")  # Okabe and Ito's, darkened for lines
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (6, 2, 1.5, 2)), (0, (1.5, 1.5)), (0, (9, 2)), (0, (3, 1)))
_STYLE: Any = {
    "axes.edgecolor": "#7b8794",
    "axes.labelcolor": _INK,
    "axes.labelsize": 8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 8.5,
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "guidebook",
    "text.color": _INK,
    "text.parse_math": False,  # a "$" in a name is a dollar
    "xtick.color": "#52606d",
    "xtick.labelsize": 7.5,
    "ytick.color": "#52606d",
    "ytick.labelsize": 7.5,
}


class Look(NamedTuple):
    """How a posterior is drawn, the same in every figure.

    Attributes
    ----------
    colour : str
        Of its line; of its area, for the reference.
    dash : str or tuple
        Matplotlib's line style.
    """

    colour: str
    dash: Any


class ComparisonFigure(Figure):
    """A figure that notebooks show although pyplot does not know it."""

    def _repr_png_(self) -> bytes:
        with _style():
            self.savefig(buffer := io.BytesIO(), format="png", dpi=110)
        return buffer.getvalue()


def looks(comparison: Comparison) -> dict[str, Look]:
    """Colour and line style of every posterior: grey for the reference."""
    cycle = zip(itertools.cycle(_COLOURS), itertools.cycle(_DASHES), strict=False)
    others = [name for name in comparison.posteriors if name != comparison.reference]
    return {comparison.reference: Look(_GREY, "-")} | {n: Look(*look) for n, look in zip(others, cycle, strict=False)}


def worst_first(comparison: Comparison) -> list[str]:
    """The quantities compared, those first on which some posterior is farthest from the reference.

    Shift and ratio count in multiples of what is still usable, as they do for `Comparison.worst`.
    """
    distance = np.zeros(len(comparison.quantities[comparison.reference]))
    for frame in comparison.quantities.values():
        shift = frame["mean_shift_in_sd"].abs().to_numpy() / USABLE_SHIFT
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.abs(np.log(frame["sd_ratio"].to_numpy())) / math.log(USABLE_RATIO)
        distance = np.fmax(distance, np.fmax(shift, ratio))
    order = np.argsort(-distance, kind="stable")
    return [str(comparison.quantities[comparison.reference].index[i]) for i in order]


def plot_comparison(comparison: Comparison, *, quantities: Sequence[str] | None = None) -> Figure:
    """Posterior densities over one another, a panel a quantity; points as vertical lines.

    Parameters
    ----------
    comparison : Comparison
    quantities : sequence of str, optional
        Labels to show, as in ``comparison.quantities``; the twelve on which posteriors differ most where left out.

    Returns
    -------
    Figure
        Of matplotlib; ``.savefig(path)`` writes it.

    Raises
    ------
    ValueError
        If a label is not one of the quantities compared, or none is given.
    """
    known = comparison.quantities[comparison.reference].index
    chosen = worst_first(comparison)[:12] if quantities is None else list(quantities)
    if unknown := [label for label in chosen if label not in known]:
        raise ValueError(f"plot_comparison: no quantity {unknown[0]!r}; there are {', '.join(known)}")
    if not chosen:
        raise ValueError("plot_comparison: no quantity to plot")
    columns = min(4, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    with _style():
        figure = ComparisonFigure(figsize=(columns * 2.7, rows * 2.1 + 0.4))
        figure.set_layout_engine("constrained", w_pad=0.09, h_pad=0.06)
        axes = figure.subplots(rows, columns, squeeze=False).flat
        for ax, label in zip(axes, chosen, strict=False):
            _overlay(ax, comparison, label)
            ax.set_title(label)
        for ax in list(axes)[len(chosen) :]:
            ax.set_axis_off()
        handles = [
            ax.fill_between([], [], color=look.colour, alpha=0.55, label=name)
            if name == comparison.reference
            else ax.plot([], [], color=look.colour, linestyle=look.dash, label=name)[0]
            for ax in [figure.axes[0]]
            for name, look in looks(comparison).items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def plot_quantity(comparison: Comparison, label: str, title: str | None = None) -> Figure:
    """One panel of `plot_comparison`, without a legend."""
    with _panel(_PANEL[0], 2.0) as (figure, ax):
        _overlay(ax, comparison, label)
        ax.set_title(title or label)
    return figure


def plot_losses(name: str, info: SviInfo, look: Look) -> Figure:
    """The negative loss of a run of SVI: single steps faint, their running mean as a line."""
    values = -info.losses.detach().cpu().double().numpy()
    window = max(1, len(values) // 50)
    finite = np.where(np.isfinite(values), values, np.nan)
    total, count = np.cumsum(np.nan_to_num(finite)), np.cumsum(np.isfinite(finite))
    total[window:], count[window:] = total[window:] - total[:-window], count[window:] - count[:-window]
    with np.errstate(invalid="ignore"):
        mean = total / np.where(count, count, np.nan)
    shown = _thin(len(values), 500)
    with _panel() as (figure, ax):
        ax.plot(shown + 1, finite[shown], color=look.colour, alpha=0.25, linewidth=0.6)
        ax.plot(shown + 1, mean[shown], color=look.colour, linewidth=1.6)
        if info.elbo is not None and math.isfinite(info.elbo):
            ax.axhline(info.elbo, color=_INK, linewidth=0.8, linestyle=":")
        late = mean[len(mean) // 20 :]
        _frame(ax, np.append(late, info.elbo if info.elbo is not None else np.nan))
        ended = "" if info.elbo is None else f": ELBO {info.elbo:,.1f} at the end".replace("-", "−")
        ax.set_title(name + ended)
        ax.set_xlabel("step")
        ax.set_ylabel("log joint density, nats" if info.is_point else "ELBO estimate, nats")
    return figure


def plot_objective(name: str, info: EmInfo, look: Look) -> Figure:
    """The objective of EM after each iteration of its best restart, and where the other sound restarts ended."""
    values = info.objective.detach().cpu().double().numpy()
    shown = _thin(len(values), 500)
    with _panel() as (figure, ax):
        ax.plot(shown, values[shown], color=look.colour, linewidth=1.6, marker="o", markersize=2.2)
        _frame(ax, values[len(values) // 20 :])
        bottom, _ = ax.get_ylim()
        for basin in info.basins:
            if basin["flaw"] is None and bottom < basin["objective"]:
                ax.axhline(basin["objective"], color=_INK, linewidth=0.8, linestyle=":")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.set_title(name)
        ax.set_xlabel("iteration")
        ax.set_ylabel("log likelihood, nats")
    return figure


def companion(comparison: Comparison, label: str) -> str | None:
    """The quantity most correlated with ``label`` under the reference; None where there is none."""
    draws = {name: value.flatten().numpy() for name, value in comparison.draws[comparison.reference].items()}
    if label not in draws or len(draws) < 2 or len(draws[label]) < 3:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = np.abs(np.corrcoef(np.stack(list(draws.values())))[list(draws).index(label)])
    correlation[list(draws).index(label)] = np.nan
    return None if np.isnan(correlation).all() else list(draws)[int(np.nanargmax(correlation))]


def plot_pair(comparison: Comparison, first: str, second: str) -> Figure:
    """Two quantities: the reference's draws as dots, every posterior's 90 % normal ellipse, points as crosses."""
    with _panel(4.6, 3.7) as (figure, ax):
        dots = _pair(comparison, comparison.reference, first, second)
        dots = dots[_thin(len(dots), 500)]
        ax.plot(*dots.T, linestyle="none", marker="o", markersize=2, markeredgewidth=0, color=_GREY, alpha=0.6)
        for name, look in looks(comparison).items():
            points = _pair(comparison, name, first, second)
            colour = "#616e7c" if name == comparison.reference else look.colour
            centre = points.mean(0)
            if len(points) > 2:
                ax.add_patch(_ellipse(centre, np.cov(points.T), edgecolor=colour, linestyle=look.dash, linewidth=1.6))
                ax.plot(*centre, marker="+", color=colour, markersize=7)
            else:
                ax.plot(*centre, marker="X", color=colour, markersize=7, markeredgewidth=0)
        ax.autoscale_view()
        ax.set_xlabel(first)
        ax.set_ylabel(second)
    return figure


class Mixture(NamedTuple):
    """Gaussian components, one representative of a posterior.

    Attributes
    ----------
    weights : ndarray, shape (k,)
    loc : ndarray, shape (k, d)
    covariance : ndarray, shape (k, d, d)
    """

    weights: np.ndarray
    loc: np.ndarray
    covariance: np.ndarray


def mixtures_of(posteriors: Mapping[str, Posterior]) -> dict[str, Mixture]:
    """Components of Gaussian mixtures at the posterior mean, by name; none for other models.

    Each posterior's draws are matched to one another, and only their mean to the first posterior's: draw by draw, a
    posterior in another mode would have its components exchanged between draws, and the mean would be no mixture.

    Parameters
    ----------
    posteriors : dict of Posterior
        With draws of ``weights``, ``loc`` and ``covariance``, as `guidebook.models.gmm` has them.
    """
    from .models import gmm  # brings scikit-learn with it

    mixtures, anchor = {}, None
    for name, posterior in posteriors.items():
        sites = {site: posterior.draws[site] for site in ("weights", "loc", "covariance") if site in posterior.draws}
        if len(sites) < 3 or sites["weights"].dim() != 3 or sites["loc"].dim() != 4 or sites["loc"].shape[-1] < 2:
            continue
        sites = {site: value.detach().cpu().double() for site, value in sites.items()}
        mean = {site: value.mean((0, 1), keepdim=True) for site, value in gmm.identify(sites).items()}
        anchor = anchor or mean
        matched = gmm.identify(mean, anchor)
        weights, loc, covariance = (matched[site][0, 0] for site in ("weights", "loc", "covariance"))
        if covariance.dim() == loc.dim() - 1:  # isotropic
            covariance = covariance[:, None].expand_as(loc)
        if covariance.dim() == loc.dim():  # diagonal
            covariance = torch.diag_embed(covariance)
        covariance = covariance.expand(*loc.shape, loc.shape[-1])  # tied
        mixtures[name] = Mixture(weights.numpy(), loc.numpy(), covariance.numpy())
    return mixtures


def separating_columns(mixture: Mixture) -> tuple[int, int]:
    """The two columns in which the closest two components are farthest apart, in units of their spread."""
    k = len(mixture.loc)
    variance = np.diagonal(mixture.covariance, axis1=-2, axis2=-1)
    if k == 1:
        first, second = np.argsort(-variance[0])[:2]
        return int(min(first, second)), int(max(first, second))
    one, other = np.triu_indices(k, 1)
    gap = (mixture.loc[one] - mixture.loc[other]) ** 2 / (variance[one] + variance[other])
    best = sorted(np.argsort(-gap.sum(0), kind="stable")[:30])
    pairs = list(itertools.combinations(best, 2))
    first, second = max(pairs, key=lambda pair: gap[:, list(pair)].sum(1).min())
    return int(first), int(second)


def plot_mixtures(
    mixtures: Mapping[str, Mixture], x: Tensor, columns: tuple[int, int], labels: tuple[str, str]
) -> dict[str, Figure]:
    """Two columns of the data, and the ellipse that holds 90 % of each component, thicker where its weight is larger.

    A figure for each mixture, all with the same axes.
    """
    rows = x.detach().cpu().double().numpy()[:, list(columns)]
    low, high = rows.min(0), rows.max(0)
    pad = 0.15 * (high - low)
    rows = rows[_thin(len(rows), 800)]
    figures = {}
    for name, mixture in mixtures.items():
        with _panel(_PANEL[0], 2.9) as (figure, ax):
            ax.plot(*rows.T, linestyle="none", marker="o", markersize=2.4, markeredgewidth=0, color=_GREY, alpha=0.8)
            for weight, loc, covariance, colour in zip(*mixture, itertools.cycle(_COLOURS), strict=False):
                centre, spread = loc[list(columns)], covariance[np.ix_(columns, columns)]
                ax.add_patch(_ellipse(centre, spread, edgecolor=colour, linewidth=0.8 + 2 * min(1.0, float(weight))))
                ax.plot(*centre, marker="+", color=colour, markersize=7)
            ax.set_xlim(low[0] - pad[0], high[0] + pad[0])
            ax.set_ylim(low[1] - pad[1], high[1] + pad[1])
            ax.set_title(name)
            ax.set_xlabel(labels[0])
            ax.set_ylabel(labels[1])
        figures[name] = figure
    return figures


class Graph(NamedTuple):
    """A model as a directed graph.

    Attributes
    ----------
    nodes : dict
        Name → (kind, distribution); kind is "latent", "observed", "deterministic" or "parameter".
    edges : list of (str, str)
        Parent, child.
    plates : dict
        Label → names of the sites within.
    """

    nodes: dict[str, tuple[str, str]]
    edges: list[tuple[str, str]]
    plates: dict[str, set[str]]


def model_graph(model: Callable[..., Any], data: tuple) -> Graph:
    """Sites of a Pyro model, what depends on what, and its plates.

    Pyro follows values through a model, but loses sight of one that is written into part of another tensor; what
    gradients find is added to what Pyro finds.

    Parameters
    ----------
    model : callable
        Any Pyro model.
    data : tuple
        Its arguments.
    """
    with isolated(0):
        relations = get_model_relations(model, data)
    with isolated(0), torch.enable_grad(), _Cut(), poutine.trace() as tracer:
        model(*data)
    sites: dict[str, Any] = dict(tracer.trace.nodes)
    nodes, edges = {}, []
    for name, distribution in relations["sample_dist"].items():
        kind = "observed" if name in relations["observed"] else "latent"
        kind = "deterministic" if is_deterministic(sites[name]) else kind
        nodes[name] = (kind, "" if kind == "deterministic" else distribution)
    for name in list(nodes):
        parents = [*relations["sample_sample"][name], *relations["sample_param"][name]]
        for parent in parents + _parents_by_gradient(sites, name):
            if sites[parent]["type"] == "param":
                parent = parent.split("$$$")[0].split(".")[0]  # a network counts as one
                nodes.setdefault(parent, ("parameter", ""))
            edges.append((parent, name))
    sizes = {f.name: f.size for site in sites.values() for f in site.get("cond_indep_stack", ())}
    plates = {}
    for plate, members in relations["plate_sample"].items():
        plate = plate.split("__CLONE")[0]
        label = f"{plate}: {sizes[plate]}" if plate in sizes else plate
        plates[label + " " * sum(label == taken.rstrip() for taken in plates)] = set(members)
    return Graph(nodes, list(dict.fromkeys(edges)), plates)


class _Cut(Messenger):
    """Makes every sampled value a leaf of the autograd graph, so that gradients reach direct parents only."""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        if isinstance(value, Tensor) and value.is_floating_point() and not is_deterministic(msg):
            msg["value"] = value.detach().requires_grad_()


def _parents_by_gradient(sites: Mapping[str, Any], name: str) -> list[str]:
    """Sites and parameters that the density at a site, or a deterministic site's value, has a gradient in."""
    site, above = sites[name], {}
    for other in itertools.takewhile(lambda other: other != name, sites):
        value = sites[other].get("value")
        if sites[other]["type"] in ("sample", "param") and not is_deterministic(sites[other]):
            above |= {other: value} if isinstance(value, Tensor) and value.requires_grad else {}
    target = site["value"] if is_deterministic(site) else site["fn"].log_prob(site["value"])
    if not above or not target.requires_grad:
        return []
    found = torch.autograd.grad(target.sum(), list(above.values()), retain_graph=True, allow_unused=True)
    return [other for other, gradient in zip(above, found, strict=True) if gradient is not None]


def plot_graph(graph: Graph) -> Figure:
    """A model's graph, parents above children: observed sites shaded, deterministic ones dashed, plates as boxes."""
    place = _Layout(graph)
    with _style():
        left, right, bottom, top = place.extent()
        figure = Figure(figsize=(right - left, top - bottom))
        figure.set_layout_engine("none")
        ax = figure.add_axes((0, 0, 1, 1), xlim=(left, right), ylim=(bottom, top))
        ax.set_axis_off()
        for plate in graph.plates:
            x0, y0, x1, y1 = place.box(plate)
            style = "round,pad=0,rounding_size=0.12"
            ax.add_patch(FancyBboxPatch((x0, y0), x1 - x0, y1 - y0, boxstyle=style, facecolor="none", edgecolor=_GREY))
            ax.text(x1 - 0.1, y0 + 0.07, plate.rstrip(), ha="right", va="bottom", fontsize=7.5, color="#52606d")
        for chain in place.chains:
            ax.add_patch(
                FancyArrowPatch(
                    path=place.curve(chain), arrowstyle="-|>", mutation_scale=9, color="#52606d", linewidth=1
                )
            )
        for name, (kind, distribution) in graph.nodes.items():
            x, y = place.x[name], place.y(name)
            if kind != "parameter":
                fill = "#d3dbe4" if kind == "observed" else "white"
                dash = (0, (4, 2)) if kind == "deterministic" else "-"
                size = 2 * place.half_width(name), 2 * place.HALF_HEIGHT
                ax.add_patch(Ellipse((x, y), *size, facecolor=fill, edgecolor=_INK, linestyle=dash))
            lift = 0.075 if distribution else 0.0
            ax.text(x, y + lift, name, ha="center", va="center", fontsize=8.5)
            ax.text(x, y - 0.105, distribution, ha="center", va="center", fontsize=6.5, color="#52606d")
    return figure


class _Layout:
    """Where the nodes of a graph go, in inches: layers by generation, edges bent around the layers between."""

    HALF_HEIGHT, GAP = 0.25, 0.22

    def __init__(self, graph: Graph):
        self.graph = graph
        net = self._above_and_below_plates()
        level = {node: depth for depth, nodes in enumerate(nx.topological_generations(net)) for node in nodes}
        for node in graph.nodes:  # a root stands just above its first child
            if net.in_degree(node) == 0 and net.out_degree(node):
                level[node] = min(level[child] for child in net.successors(node)) - 1
        self.level: dict[Any, int] = level
        self.chains = []
        for parent, child in graph.edges:
            between = [(parent, child, depth) for depth in range(level[parent] + 1, level[child])]
            self.level |= {bend: bend[2] for bend in between}
            self.chains.append([parent, *between, child])
        self.links = [link for chain in self.chains for link in itertools.pairwise(chain)]
        self.inside = {n: sum(n in members for members in graph.plates.values()) for n in self.level}
        self.rows = [[n for n in self.level if self.level[n] == depth] for depth in range(1 + max(level.values()))]
        self.x = self._row_by_row()
        self._order()
        smooth = self._aligned()
        if self._cost(smooth) <= self._cost(self.x):
            self.x = smooth

    def _above_and_below_plates(self) -> nx.DiGraph:
        """The graph, with what leads into a plate put above all of it, and what leads out of it below."""
        net = nx.DiGraph(self.graph.edges)
        net.add_nodes_from(self.graph.nodes)
        for (parent, child), members in itertools.product(self.graph.edges, self.graph.plates.values()):
            if (parent in members) == (child in members):
                continue
            for site in members:
                upper, lower = (site, child) if parent in members else (parent, site)
                if upper != lower and not nx.has_path(net, lower, upper):
                    net.add_edge(upper, lower)
        return net

    def half_width(self, node: Any) -> float:
        if isinstance(node, tuple):
            return 0.05
        return 0.17 + 0.5 * max(0.086 * len(node), 0.066 * len(self.graph.nodes[node][1]))

    def y(self, node: Any) -> float:
        deepest = max(self.inside.values(), default=0)
        return -self.level[node] * (1.0 + 0.32 * deepest)

    def box(self, plate: str, x: Mapping[Any, float] | None = None) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of a plate; those inside others are smaller."""
        place = self.x if x is None else x
        members = [n for n in self.graph.plates[plate] if n in place]
        plates = list(self.graph.plates)
        mine = self.graph.plates[plate]
        depth = sum(
            theirs < mine or (theirs == mine and plates.index(other) < plates.index(plate))
            for other, theirs in self.graph.plates.items()
        )
        pad, foot = 0.14 + 0.12 * depth, 0.3 + 0.24 * depth
        label = 0.075 * len(plate) + 0.25
        left = min(place[n] - self.half_width(n) for n in members) - pad
        right = max(place[n] + self.half_width(n) for n in members) + pad
        short = max(0.0, label - (right - left)) / 2
        bottom = min(self.y(n) for n in members) - self.HALF_HEIGHT - foot
        return left - short, bottom, right + short, max(self.y(n) for n in members) + self.HALF_HEIGHT + pad

    def extent(self) -> tuple[float, float, float, float]:
        boxes = [self.box(plate) for plate in self.graph.plates]
        for n in self.x:
            wide = self.half_width(n)
            boxes.append(
                (self.x[n] - wide, self.y(n) - self.HALF_HEIGHT, self.x[n] + wide, self.y(n) + self.HALF_HEIGHT)
            )
        left, bottom, right, top = np.array(boxes).T
        return left.min() - 0.1, right.max() + 0.1, bottom.min() - 0.1, top.max() + 0.1

    def curve(self, chain: list[Any]) -> Curve:
        """A smooth line through the bends of an edge, upright where it meets them."""
        points = [(self.x[n], self.y(n)) for n in chain]
        foot = 0.1 if self.graph.nodes[chain[0]][0] == "parameter" else self.HALF_HEIGHT
        points[0] = (points[0][0], points[0][1] - foot)
        points[-1] = (points[-1][0], points[-1][1] + self.HALF_HEIGHT + 0.02)
        vertices, codes = [points[0]], [Curve.MOVETO]
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            middle = (y0 + y1) / 2
            vertices += [(x0, middle), (x1, middle), (x1, y1)]
            codes += [Curve.CURVE4] * 3
        return Curve(vertices, codes)

    def _reach(self, node: Any) -> float:
        return self.half_width(node) + self.GAP / 2 + 0.14 * self.inside[node]

    def _row_by_row(self) -> dict[Any, float]:
        place = {}
        for row in self.rows:
            at = -sum(self._reach(n) for n in row)
            for n in row:
                place[n] = at + self._reach(n)
                at += 2 * self._reach(n)
        return place

    def _cost(self, x: Mapping[Any, float]) -> float:
        """Crossings, sites caught in a plate that is not theirs, and the length of the edges."""
        cost = sum(abs(x[a] - x[b]) for a, b in self.links)
        for (a, b), (c, d) in itertools.combinations(self.links, 2):
            if self.level[a] == self.level[c]:
                cost += 4 * ((x[a] - x[c]) * (x[b] - x[d]) < 0)
        for plate, members in self.graph.plates.items():
            left, bottom, right, top = self.box(plate, x)
            for n in self.graph.nodes:
                if n not in members and bottom < self.y(n) < top:
                    wide = self.half_width(n)
                    cost += 50 * (x[n] + wide > left and x[n] - wide < right)
        for one, other in itertools.combinations(self.graph.plates, 2):
            if not self.graph.plates[one] & self.graph.plates[other]:
                a, b = self.box(one, x), self.box(other, x)
                cost += 50 * (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
        return cost

    def _order(self) -> None:
        """Swap sites of a layer as long as that makes the drawing better."""
        best = self._cost(self.x)
        for _ in range(8):
            before = best
            for row in self.rows:
                for i, j in itertools.combinations(range(len(row)), 2):
                    row[i], row[j] = row[j], row[i]
                    place = self._row_by_row()
                    if (cost := self._cost(place)) < best - 1e-9:
                        best, self.x = cost, place
                    else:
                        row[i], row[j] = row[j], row[i]
            if best == before:
                break

    def _aligned(self) -> dict[Any, float]:
        """Every node as near its neighbours' mean as the order and the widths within its layer allow."""
        near: dict[Any, list[Any]] = {n: [] for n in self.x}
        for a, b in self.links:
            near[a].append(b)
            near[b].append(a)
        place = dict(self.x)
        for _ in range(30):
            for row in self.rows:
                reach = np.array([self._reach(n) for n in row])
                offset = np.concatenate([[0.0], np.cumsum(reach[:-1] + reach[1:])])
                wanted = [np.mean([place[m] for m in near[n]]) if near[n] else place[n] for n in row]
                place |= dict(zip(row, isotonic_regression(np.array(wanted) - offset) + offset, strict=True))
        return {n: float(at) for n, at in place.items()}


def to_svg(figure: Figure, description: str, key: str) -> Markup:
    """A figure as an ``<svg>`` element to stand in a page: described in words, with ids that start with ``key``."""
    text = io.StringIO()
    with _style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts of its own
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'( id="|url\(#|xlink:href="#)', rf"\g<1>{key}-", svg)
    svg = svg.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    opening = f'<svg role="img" aria-label="{escape(description)}" '
    return Markup(svg.replace("<svg ", opening, 1))  # matplotlib has escaped what it wrote


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE):
        yield


@contextmanager
def _panel(width: float = _PANEL[0], height: float = _PANEL[1]) -> Iterator[tuple[Figure, Axes]]:
    with _style():
        figure = Figure(figsize=(width, height))
        ax = figure.subplots()
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        yield figure, ax


def _overlay(ax: Axes, comparison: Comparison, label: str) -> None:
    """Densities of one quantity; what lies beyond the frame is named at its edge."""
    draws = {name: sites[label].flatten().numpy() for name, sites in comparison.draws.items()}
    draws = {name: values[np.isfinite(values)] for name, values in draws.items()}
    low, high = _range(draws, comparison.reference)
    grid = np.linspace(low, high, 160)
    peaks, beyond = [], {"left": [], "right": []}
    for name, look in looks(comparison).items():
        values = draws[name]
        if not len(values):
            continue
        centre = float(np.median(values))
        if not low <= centre <= high:
            beyond["left" if centre < low else "right"].append((name, look))
            if len(values) < 3:
                continue
        if len(values) < 3 or values.std() < 1e-9 * (1 + abs(centre)):
            ax.axvline(centre, color="#616e7c" if name == comparison.reference else look.colour, linestyle=look.dash)
            continue
        density = gaussian_kde(values[_thin(len(values), 4000)])(grid)
        peaks.append(density.max())
        if name == comparison.reference:
            ax.fill_between(grid, density, color=look.colour, alpha=0.55, linewidth=0)
        else:
            ax.plot(grid, density, color=look.colour, linestyle=look.dash, linewidth=1.5)
    if peaks:
        ax.set_ylim(0, 1.06 * min(max(peaks), 4 * peaks[0]))
    for side, names in beyond.items():
        for row, (name, look) in enumerate(names):
            left = side == "left"
            ax.text(0.01 if left else 0.99, 0.96 - 0.11 * row, f"← {name}" if left else f"{name} →", fontsize=7,
                    ha=side, va="top", transform=ax.transAxes, color=look.colour)  # fmt: skip
    ax.set_xlim(low, high)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(4))


def _range(draws: Mapping[str, np.ndarray], reference: str) -> tuple[float, float]:
    """Where to draw densities: over the reference, and over the others unless they are far away."""
    ends = [np.quantile(v, [0.01, 0.99] if n != reference else [0.002, 0.998]) for n, v in draws.items() if len(v)]
    low, high = min((e[0] for e in ends), default=0.0), max((e[1] for e in ends), default=1.0)
    base = draws[reference]
    if len(base) > 2 and base.std() > 0:
        low, high = max(low, base.mean() - 7 * base.std()), min(high, base.mean() + 7 * base.std())
    pad = 0.05 * (high - low) or 0.05 * (1 + abs(low))
    return float(low - pad), float(high + pad)


def _frame(ax: Axes, values: np.ndarray) -> None:
    """Fit the vertical axis to ``values``, whatever else is drawn."""
    values = values[np.isfinite(values)]
    if len(values):
        low, high = float(values.min()), float(values.max())
        pad = 0.08 * (high - low) or 0.01 * (1 + abs(low))
        ax.set_ylim(low - pad, high + pad)


def _pair(comparison: Comparison, name: str, first: str, second: str) -> np.ndarray:
    return np.stack([comparison.draws[name][label].flatten().numpy() for label in (first, second)], -1)


def _ellipse(centre: np.ndarray, covariance: np.ndarray, **look: Any) -> Ellipse:
    """The ellipse that holds 90 % of a normal in two dimensions."""
    values, vectors = np.linalg.eigh(covariance)
    minor, major = 2 * np.sqrt(-2 * math.log(0.1) * np.clip(values, 0, None))
    angle = math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    return Ellipse((float(centre[0]), float(centre[1])), major, minor, angle=angle, facecolor="none", **look)


def _thin(length: int, most: int) -> np.ndarray:
    """Positions of at most ``most`` of ``length`` values, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int)) if length else np.arange(0)
