"""Where the nodes of a model's graph go: parents above children, plates apart, edges bent around what is between."""

import itertools
from collections.abc import Hashable

import networkx as nx
import numpy as np
from sklearn.isotonic import isotonic_regression

from .graph import Graph

Box = tuple[float, float, float, float]  # left, bottom, right, top


class Layout:
    """Places in inches, upwards and to the right; a layer for each generation, ordered by exchange.

    Attributes
    ----------
    x : dict of float
        Centre of each node, and of each bend: (parent, child, level), where an edge passes a layer.
    chains : list of list
        For each edge its parent, its bends and its child.
    rows : list of list
        Nodes and bends of each layer, from left to right.
    """

    HALF_HEIGHT, GAP = 0.25, 0.22

    def __init__(self, graph: Graph):
        self.graph = graph
        self.level: dict[Hashable, int] = _levels(graph)
        self.chains: list[list[Hashable]] = []
        for parent, child in graph.edges:
            bends = [(parent, child, depth) for depth in range(self.level[parent] + 1, self.level[child])]
            self.level |= {bend: bend[2] for bend in bends}
            self.chains.append([parent, *bends, child])
        links = [link for chain in self.chains for link in itertools.pairwise(chain)]
        self.links = sorted(links, key=lambda link: self.level[link[0]])
        self.inside = {n: sum(n in members for members in graph.plates.values()) for n in self.level}
        self.rows = [[n for n in self.level if self.level[n] == depth] for depth in range(1 + max(self.level.values()))]
        self.x = self._side_by_side()
        best = self._exchange()
        rough, self.x = self.x, self._aligned()
        if self._cost() > best:
            self.x = rough

    def half_width(self, node: Hashable) -> float:
        """Of an ellipse that holds the name and the distribution."""
        if not isinstance(node, str):
            return 0.05
        return 0.17 + 0.5 * max(0.086 * len(node), 0.066 * len(self.graph.nodes[node][1]))

    def y(self, node: Hashable) -> float:
        """Centre of a node's layer."""
        return -self.level[node] * (1.0 + 0.32 * max(self.inside.values()))

    def box(self, plate: str) -> Box:
        """Around the sites of a plate and its label; around the plates within it, too."""
        plates = list(self.graph.plates.items())
        members = self.graph.plates[plate]
        within = sum(
            m < members or (m == members and plates.index((p, m)) < plates.index((plate, m))) for p, m in plates
        )
        pad, foot = 0.14 + 0.12 * within, 0.3 + 0.24 * within
        left, bottom, right, top = _around([self._around(n) for n in members])
        short = max(0.0, 0.075 * len(plate) + 0.25 - (right - left + 2 * pad)) / 2
        return left - pad - short, bottom - foot, right + pad + short, top + pad

    def extent(self) -> Box:
        """Around everything."""
        boxes = [self._around(n) for n in self.x] + [self.box(plate) for plate in self.graph.plates]
        left, bottom, right, top = _around(boxes)
        return left - 0.1, bottom - 0.1, right + 0.1, top + 0.1

    def _around(self, node: Hashable) -> Box:
        x, y, wide, high = self.x[node], self.y(node), self.half_width(node), self.HALF_HEIGHT
        return x - wide, y - high, x + wide, y + high

    def _offsets(self, row: list[Hashable]) -> np.ndarray:
        """How far to the right of the first of a row each must be."""
        reach = np.array([self.half_width(n) + self.GAP / 2 + 0.14 * self.inside[n] for n in row])
        return np.concatenate([[0.0], np.cumsum(reach[:-1] + reach[1:])])

    def _side_by_side(self) -> dict[Hashable, float]:
        place = {}
        for row in self.rows:
            offsets = self._offsets(row)
            place |= dict(zip(row, (offsets - offsets[-1] / 2).tolist(), strict=True))
        return place

    def _cost(self) -> float:
        """Length of the edges, their crossings, and above all sites and plates in plates that are not theirs."""
        cost, plates = 0.0, self.graph.plates
        for _, links in itertools.groupby(self.links, key=lambda link: self.level[link[0]]):
            ends = np.array([[self.x[a], self.x[b]] for a, b in links])
            crossings = (ends[:, None] - ends).prod(-1) < 0  # both of each pair
            cost += float(np.abs(ends[:, 0] - ends[:, 1]).sum() + 2 * crossings.sum())
        boxes = {plate: self.box(plate) for plate in plates}
        for plate, node in itertools.product(plates, self.graph.nodes):
            cost += 50 * (node not in plates[plate] and _overlap(boxes[plate], self._around(node)))
        for one, other in itertools.combinations(plates, 2):
            cost += 50 * (not plates[one] & plates[other] and _overlap(boxes[one], boxes[other]))
        return cost

    def _exchange(self) -> float:
        """Exchange nodes of a layer as long as that makes the drawing better; what it then costs."""
        best, last = self._cost(), 0
        pairs = [(row, i, j) for row in self.rows for i, j in itertools.combinations(range(len(row)), 2)]
        for tried, (row, i, j) in enumerate(itertools.islice(itertools.cycle(pairs), 3000)):
            if tried - last > len(pairs):  # all of them in vain
                break
            before = self.x
            row[i], row[j] = row[j], row[i]
            self.x = self._side_by_side()
            if (cost := self._cost()) < best - 1e-9:
                best, last = cost, tried
            else:
                row[i], row[j], self.x = row[j], row[i], before
        return best

    def _aligned(self) -> dict[Hashable, float]:
        """Every node as near its neighbours' mean as the order and the widths within its layer allow."""
        near: dict[Hashable, list[Hashable]] = {n: [] for n in self.x}
        for a, b in self.links:
            near[a].append(b)
            near[b].append(a)
        place = dict(self.x)
        for _ in range(30):
            for row in self.rows:
                offsets = self._offsets(row)
                wanted = np.array([np.mean([place[m] for m in near[n] or [n]]) for n in row])
                place |= dict(zip(row, (isotonic_regression(wanted - offsets) + offsets).tolist(), strict=True))
        return place


def _levels(graph: Graph) -> dict[Hashable, int]:
    """Layer of each node, from the top: what leads into a plate above all of it, what leads out of it below."""
    net = nx.DiGraph(graph.edges)
    net.add_nodes_from(graph.nodes)
    for (parent, child), members in itertools.product(graph.edges, graph.plates.values()):
        if (parent in members) != (child in members):
            for site in members:
                upper, lower = (site, child) if parent in members else (parent, site)
                if upper != lower and not nx.has_path(net, lower, upper):
                    net.add_edge(upper, lower)
    level: dict[Hashable, int] = {
        node: depth for depth, nodes in enumerate(nx.topological_generations(net)) for node in nodes
    }
    for node in graph.nodes:  # a root stands just above its first child
        if net.in_degree(node) == 0 and net.out_degree(node):
            level[node] = min(level[child] for child in net.successors(node)) - 1
    return level


def _around(boxes: list[Box]) -> Box:
    left, bottom, right, top = zip(*boxes, strict=True)
    return min(left), min(bottom), max(right), max(top)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
