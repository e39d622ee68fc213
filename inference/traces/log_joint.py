"""The log density of a model at given values of its latent sites, discrete ones summed out."""

from collections.abc import Callable, Collection

import torch
from pyro import poutine
from pyro.infer import config_enumerate, infer_discrete
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.poutine import Trace
from torch import Tensor

from .init import InitToValues
from .sites import is_deterministic, is_latent, nodes, plate_depth

Sites = dict[str, Tensor]


class LogJoint:
    """log p(x, z) in nats as a function of ``z``, values by site, shape (*site); sites in ``summed`` are summed out.

    ``trace`` is one of the model, run on the data without enumeration. The sum is exact, by variable elimination:
    Obermeyer et al. (2019), Tensor variable elimination for plated factor graphs, ICML.
    """

    def __init__(self, model: Callable, data: tuple, trace: Trace, summed: Collection[str] = ()) -> None:
        self.model, self.data, self.prototype, self.summed = model, data, trace, frozenset(summed)
        self.latent = [name for name, site in nodes(trace).items() if is_latent(site) and name not in self.summed]
        self.first_dim = -1 - plate_depth(trace)
        self._enumerated, self._evaluator, self.moves_with_discrete = model, None, False
        if summed:
            self._enumerated = poutine.enum(config_enumerate(model), self.first_dim)
            values = {name: nodes(trace)[name]["value"] for name in self.latent}
            self.example = poutine.trace(poutine.condition(self._enumerated, data=values)).get_trace(*data)
            self._evaluator = TraceEinsumEvaluator(self.example, True, plate_depth(trace))
            self.moves_with_discrete = any(
                is_deterministic(site) and site["value"].shape != nodes(trace)[name]["value"].shape
                for name, site in nodes(self.example).items()
                if name in trace.nodes
            )

    def at(self, values: Sites) -> tuple[Tensor, Trace]:
        """Return the log density at these values, and the trace there, enumerated if sites are summed out."""
        trace = poutine.trace(poutine.condition(self._enumerated, data=values)).get_trace(*self.data)
        total = trace.log_prob_sum() if self._evaluator is None else self._evaluator.log_prob(trace)
        return torch.as_tensor(total), trace

    def trace(self, values: Sites) -> Trace:
        """Return a trace of the model at these values, sites that are summed out drawn from their prior."""
        return poutine.trace(poutine.condition(self.model, data=values)).get_trace(*self.data)

    def completed(self, values: Sites) -> Sites:
        """Return values of all latent sites that are not summed out, from those of the model as it was given."""
        if all(name in values for name in self.latent):
            return {name: values[name] for name in self.latent}
        found = nodes(poutine.trace(InitToValues(values)(self.model)).get_trace(*self.data))
        return {name: found[name]["value"] for name in self.latent}

    def __call__(self, values: Sites) -> Tensor:
        """Return the log density at these values."""
        return self.at(values)[0]

    def with_discrete(self, values: Sites) -> Trace:
        """Return a trace in which the sites summed out are drawn from their exact posterior, given these values."""
        model = poutine.condition(self.model, data=values)
        if self.summed:
            model = infer_discrete(config_enumerate(model), first_available_dim=self.first_dim)
        return poutine.trace(model).get_trace(*self.data)
