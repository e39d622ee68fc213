"""The graph of a Pyro model: its sites, their dependencies and its plates."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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

    Pyro loses track of a value that is written into part of another tensor; gradients find those dependencies.
    """
    with isolated(0):
        relations = get_model_relations(model, data)
    with isolated(0), torch.enable_grad(), _Cut(), poutine.trace() as tracer:
        model(*data)
    sites: dict[str, Any] = dict(tracer.trace.nodes)
    nodes, edges = {}, []
    for name, distribution in relations["sample_dist"].items():
        if is_deterministic(sites[name]):
            nodes[name] = ("deterministic", "")
        else:
            nodes[name] = ("observed" if name in relations["observed"] else "latent", distribution)
    for name in list(nodes):
        parents = [*relations["sample_sample"][name], *relations["sample_param"][name]]
        for parent in parents + _parents_by_gradient(sites, name):
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
    """Make every sampled value a leaf of the autograd graph, so that gradients reach direct parents only."""

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        if isinstance(value, Tensor) and value.is_floating_point() and not is_deterministic(msg):
            msg["value"] = value.detach().requires_grad_()


def _parents_by_gradient(sites: Mapping[str, Any], name: str) -> list[str]:
    """Return the sites and parameters on which the density at a site, or a deterministic value, depends."""
    site = sites[name]
    above = {}
    for other, node in itertools.takewhile(lambda item: item[0] != name, sites.items()):
        value = node.get("value")
        is_source = node["type"] in ("sample", "param") and not is_deterministic(node)
        if is_source and isinstance(value, Tensor) and value.requires_grad:
            above[other] = value
    target = site["value"] if is_deterministic(site) else site["fn"].log_prob(site["value"])
    if not above or not target.requires_grad:
        return []
    found = torch.autograd.grad(target.sum(), list(above.values()), retain_graph=True, allow_unused=True)
    return [other for other, gradient in zip(above, found, strict=True) if gradient is not None]
