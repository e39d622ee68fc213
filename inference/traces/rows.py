"""Log densities of what a model observes, row by row, and of its priors, at given values of its latent sites."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from pyro.ops.contract import contract_to_tensor
from pyro.poutine import Trace
from torch import Tensor

from .generate import is_data, is_factor
from .log_joint import LogJoint, Sites, mappable_log
from .sites import nodes


class Densities(NamedTuple):
    """Log densities in nats, with the model's masks and scales."""

    likelihood: Sites  # name -> (*batch): one number per row
    prior: Sites  # latent site -> (), the sum over its entries


class RowDensities:
    """Log densities of a model as a function of the values of its latent sites, those summed out left out.

    What depends on discrete sites that are summed out is independent, row by row, only in the plates that all sites
    concerned share: there rows are entries of these plates, and observed sites that share a discrete site have one
    density, under their names joined by " + ".
    """

    def __init__(self, joint: LogJoint) -> None:
        self.joint = joint
        self.plain = [name for name, site in nodes(joint.prototype).items() if is_row_wise(site)]
        self.shared: list[_Shared] = []
        if joint.summed:
            with mappable_log():
                joint.example.compute_log_prob()
                joint.example.pack_tensors()
            self.shared = _components(joint, self.plain)
            self.plain = [name for name in self.plain if not any(name in group.sites for group in self.shared)]

    def __call__(self, values: Sites) -> Densities:
        """Return the log densities at these values."""
        _, trace = self.joint.at(values)
        trace.compute_log_prob()
        likelihood = {name: self._batch(trace, name) for name in self.plain}
        for group in self.shared:
            likelihood[group.name] = group(trace)
        prior = {name: torch.as_tensor(nodes(trace)[name]["log_prob"]).sum() for name in self.joint.latent}
        return Densities(likelihood, prior)

    def _batch(self, trace: Trace, name: str) -> Tensor:
        """Return one site's log density, in the shape that it has without enumeration."""
        site = nodes(self.joint.prototype)[name]
        shape = torch.broadcast_shapes(site["fn"].batch_shape, site["log_prob"].shape)
        return torch.as_tensor(nodes(trace)[name]["log_prob"]).expand(shape)


def is_row_wise(site: Mapping[str, Any]) -> bool:
    """Whether a node is data, or a factor with one number per row of a plate, by which some write a likelihood."""
    if site["type"] != "sample":
        return False
    return is_data(site) or (is_factor(site) and len(site["cond_indep_stack"]) > 0)


class _Shared:
    """Observed sites that depend on the same discrete sites, which are summed out."""

    def __init__(self, joint: LogJoint, sites: list[str], observed: list[str], enumerated: set[str]) -> None:
        trace = joint.example
        self.sites, self.enumerated = sites, enumerated
        self.name = " + ".join(observed) if len(observed) < 4 else f"{observed[0]} + … + {observed[-1]}"
        frames = {
            name: {
                trace.plate_to_symbol[frame.name]: frame.dim
                for frame in nodes(trace)[name]["cond_indep_stack"]
                if frame.vectorized
            }
            for name in sites
        }
        self.ordinals = {name: frozenset(plates) for name, plates in frames.items()}
        self.plates = frozenset.intersection(*self.ordinals.values())
        dims = frames[observed[0]]
        self.order = sorted(self.plates, key=lambda symbol: dims[symbol])

    def __call__(self, trace: Trace) -> Tensor:
        """Return the log density of all of them together, one number per entry of the plates that they share."""
        terms: OrderedDict[frozenset[str], list[Tensor]] = OrderedDict()
        for name in self.sites:
            terms.setdefault(self.ordinals[name], []).append(nodes(trace)[name]["packed"]["log_prob"])
        with mappable_log():
            found: Any = contract_to_tensor(terms, self.enumerated, target_ordinal=self.plates)
        return found.permute([found._pyro_dims.index(symbol) for symbol in self.order])


def _components(joint: LogJoint, observed: list[str]) -> list[_Shared]:
    """Return the observed sites that depend on discrete ones, in groups that share none."""
    trace = joint.example
    plates = set(trace.plate_to_symbol.values())
    concerned = [*observed, *joint.summed]
    symbols = {name: set(nodes(trace)[name]["packed"]["log_prob"]._pyro_dims) - plates for name in concerned}
    groups: list[tuple[list[str], set[str]]] = []
    for name in (name for name in nodes(trace) if symbols.get(name)):
        joined, summed = [name], set(symbols[name])
        for group in [group for group in groups if group[1] & summed]:
            groups.remove(group)
            joined, summed = group[0] + joined, summed | group[1]
        groups.append((joined, summed))
    found = [(sites, [name for name in sites if name in observed], summed) for sites, summed in groups]
    return [_Shared(joint, *group) for group in found if group[1]]
