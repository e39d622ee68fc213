"""The graph of a Pyro model: its sites, their dependencies and its plates."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import networkx as nx
import torch
from pyro import poutine
from pyro.infer.inspect import get_model_relations
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ...inference.traces.draws import is_deterministic
from ...inference.traces.isolate import isolated


class Graph(NamedTuple):
    """A model as a directed graph."""

    nodes: dict[str, tuple[str, str]]  # name: kind ("latent", "observed", "deterministic", "parameter"), distribution
    edges: list[tuple[str, str]]  # parent, child
    plates: dict[str, set[str]]  # label: names of the sites within


def model_graph(model: Callable[..., Any], data: tuple) -> Graph:
    """Return the sites of any Pyro model, given its arguments ``data``: their dependencies and its plates.

    What a site depends on by way of a deterministic one leads to it from there alone. Pyro loses track of a value that
    is written into part of another tensor; the graph of gradients has those dependencies.
    """
    with isolated(0):
        relations = get_model_relations(model, data, include_deterministic=True)
    with isolated(0), torch.enable_grad(), _Cut() as cut, poutine.trace() as tracer:
        model(*data)
    sites: dict[str, Any] = dict(tracer.trace.nodes)
    nodes: dict[str, tuple[str, str]] = {}
    edges: list[tuple[str, str]] = []
    for name, distribution in relations["sample_dist"].items():
        if is_deterministic(sites[name]):
            nodes[name] = ("deterministic", "")
        else:
            nodes[name] = ("observed" if name in relations["observed"] else "latent", distribution)
    for name in list(nodes):
        direct = _parents_by_gradient(sites, name, cut.computed)
        above = {p for d in direct if d in cut.computed for p in nx.ancestors(nx.DiGraph(edges), d)}
        for parent in [*relations["sample_sample"][name], *relations["sample_param"][name], *direct]:
            if parent in above and parent not in direct:
                continue
            if sites[parent]["type"] == "param":
                parent = parent.split("$$$")[0].split(".")[0]  # a network counts as one
                nodes.setdefault(parent, ("parameter", ""))
            edges.append((parent, name))
    sizes = {f.name: f.size for site in sites.values() for f in site.get("cond_indep_stack", ())}
    plates: dict[str, set[str]] = {}
    for plate, members in relations["plate_sample"].items():
        plate = plate.split("__CLONE")[0]  # a plate entered a second time
        plates.setdefault(f"{plate}: {sizes[plate]}" if plate in sizes else plate, set()).update(members)
    return Graph(nodes, list(dict.fromkeys(edges)), plates)


class _Cut(Messenger):
    """Cut the autograd graph at sites: sampled values become its leaves, deterministic ones nodes of their own.

    ``computed`` has the values of the deterministic sites as they were given.
    """

    def __init__(self) -> None:
        super().__init__()
        self.computed: dict[str, Tensor] = {}

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            return
        if is_deterministic(msg):
            self.computed[msg["name"]] = value
            msg["value"] = value.view_as(value)
        else:
            msg["value"] = value.detach().requires_grad_()


def _parents_by_gradient(sites: Mapping[str, Any], name: str, computed: Mapping[str, Tensor]) -> list[str]:
    """Return the sites and parameters next above a site in the autograd graph of its density or deterministic value."""
    above: dict[tuple[Any, int], str] = {}
    for other, node in itertools.takewhile(lambda item: item[0] != name, sites.items()):
        for value in (node.get("value"), computed.get(other)):  # a model may go on with what it gave the site
            if node["type"] in ("sample", "param") and isinstance(value, Tensor) and value.requires_grad:
                above.setdefault(_origin(value), other)
    site = sites[name]
    target = computed[name] if name in computed else site["fn"].log_prob(site["value"])
    found, waiting, seen = set(), [_origin(target)] if target.requires_grad else [], set()
    while waiting:
        origin = waiting.pop()
        if origin in seen:
            continue
        seen.add(origin)
        if origin in above:
            found.add(above[origin])
        elif not isinstance(origin[0], Tensor | None):
            waiting += [_before(step, place) for step, place in origin[0].next_functions]
    return [other for other in sites if other in found]


def _origin(value: Tensor) -> tuple[Any, int]:
    """Return the step of the autograd graph that made a value and the place among its results; of a leaf, itself."""
    return (value, 0) if value.grad_fn is None else (value.grad_fn, value.output_nr)


def _before(step: Any, place: int) -> tuple[Any, int]:
    """Return what `_origin` gives for what a step of the autograd graph has made, or for the leaf it stands for."""
    return (step.variable, 0) if hasattr(step, "variable") else (step, place)
