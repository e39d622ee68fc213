"""Places of the nodes of a model's graph: parents above children, and in each plate's box its own sites only."""

import itertools
import operator
from collections.abc import Iterable
from typing import NamedTuple

import networkx as nx

from .graph import Graph

HALF_HEIGHT, GAP, MARGIN = 0.25, 0.28, 0.3  # inches: of an ellipse, between two, beside a column of plates

Box = tuple[float, float, float, float]  # left, bottom, right, top


class Layout(NamedTuple):
    """Boxes of the nodes' ellipses and of the plates, in inches, upwards and to the right."""

    nodes: dict[str, Box]
    plates: dict[str, Box]


def lay_out(graph: Graph) -> Layout:
    """Place the nodes in layers, ordered by where their neighbours are; of several orders keep the shortest edges."""
    level, net = _levels(graph), nx.Graph(graph.edges)
    depth = max(sum(node in members for members in graph.plates.values()) for node in graph.nodes)
    order = {node: float(i) for i, node in enumerate(graph.nodes)}
    shortest, places = float("inf"), {}
    for _ in range(8):
        x = _spread(graph, level, order)
        if (length := sum(abs(x[parent] - x[child]) for parent, child in graph.edges)) < shortest:
            shortest, places = length, x
        order = {n: sum(x[m] for m in net[n]) / len(net[n]) if n in net else x[n] for n in x}
    nodes = {}
    for node, x in places.items():
        y, wide = -level[node] * (1 + 0.32 * depth), _half_width(graph, node)
        nodes[node] = x - wide, y - HALF_HEIGHT, x + wide, y + HALF_HEIGHT
    plates: dict[str, Box] = {}
    for plate, members in sorted(graph.plates.items(), key=lambda item: len(item[1])):
        left, bottom, right, top = around(nodes[n] for n in members)
        before = sum(not members.isdisjoint(graph.plates[other]) for other in plates)
        pad, foot = 0.14 + 0.1 * before, 0.3 + 0.24 * before
        short = max(0.0, 0.075 * len(plate) + 0.25 - (right - left + 2 * pad)) / 2  # for the label
        plates[plate] = left - pad - short, bottom - foot, right + pad + short, top + pad
    return Layout(nodes, plates)


def around(boxes: Iterable[Box]) -> Box:
    """Return the smallest box around several."""
    left, bottom, right, top = zip(*boxes, strict=True)
    return min(left), min(bottom), max(right), max(top)


def _half_width(graph: Graph, node: str) -> float:
    """Half the width of an ellipse that holds the node's name and distribution."""
    return 0.17 + 0.5 * max(0.086 * len(node), 0.066 * len(graph.nodes[node][1]))


def _spread(graph: Graph, level: dict[str, int], order: dict[str, float]) -> dict[str, float]:
    """Horizontal centres of all nodes, given the order within layers.

    A plate gets its own column if other nodes share its layers. Columns are in Gray-code order: sites that two crossing
    plates share stand between the two plates' other sites.
    """
    column: dict[str, tuple[bool, ...]] = dict.fromkeys(graph.nodes, ())
    shared: set[int] = set()  # layers that have several columns
    for members in sorted(graph.plates.values(), key=len, reverse=True):
        span = range(min(level[n] for n in members), max(level[n] for n in members) + 1)
        near = {column[n] for n in members}
        if any(level[n] in span and column[n] in near for n in graph.nodes if n not in members):
            column = {n: (*column[n], n in members) for n in graph.nodes}
            shared |= {*span}
    rows: dict[tuple, list[str]] = {}
    for node in sorted(graph.nodes, key=order.__getitem__):
        over_all = not any(column[node]) and level[node] not in shared
        key = () if over_all else tuple(itertools.accumulate(column[node], operator.xor))
        rows.setdefault((key, level[node]), []).append(node)
    width = {row: sum(2 * _half_width(graph, n) + GAP for n in nodes) for row, nodes in rows.items()}
    columns = sorted({key for key, _ in rows if key})
    widest = [max(w for (key, _), w in width.items() if key == c) + MARGIN for c in columns]
    edges = [0.0, *itertools.accumulate(widest)]
    centre = {c: (a + b) / 2 for c, (a, b) in zip(columns, itertools.pairwise(edges), strict=True)}
    place = {}
    for (key, depth), nodes in rows.items():
        x = centre.get(key, edges[-1] / 2) - width[key, depth] / 2
        for node in nodes:
            place[node] = x + GAP / 2 + _half_width(graph, node)
            x = place[node] + _half_width(graph, node) + GAP / 2
    return place


def _levels(graph: Graph) -> dict[str, int]:
    """Layer of each node, from the top: what leads into a plate above all of it, what leads out of it below."""
    net = nx.DiGraph(graph.edges)
    net.add_nodes_from(graph.nodes)
    for (parent, child), members in itertools.product(graph.edges, graph.plates.values()):
        if (parent in members) != (child in members):
            for site in members:
                upper, lower = (site, child) if parent in members else (parent, site)
                if upper != lower and not nx.has_path(net, lower, upper):
                    net.add_edge(upper, lower)
    level = {node: depth for depth, nodes in enumerate(nx.topological_generations(net)) for node in nodes}
    for node in graph.nodes:  # a root stands just above its first child
        if net.in_degree(node) == 0 and net.out_degree(node):
            level[node] = min(level[child] for child in net.successors(node)) - 1
    return level
