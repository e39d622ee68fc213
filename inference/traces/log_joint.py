"""The log density of a model at given values of its latent sites, discrete ones summed out."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Categorical
from pyro.infer import config_enumerate
from pyro.infer.discrete import _sample_posterior_from_trace
from pyro.infer.mcmc.util import TraceEinsumEvaluator
from pyro.ops.einsum import torch_log, torch_sample
from pyro.poutine import Trace
from pyro.poutine.enum_messenger import EnumMessenger
from pyro.poutine.util import prune_subsample_sites
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
            self._enumerated = Enumerate(self.first_dim)(config_enumerate(model))
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
        if self._evaluator is None:
            return torch.as_tensor(trace.log_prob_sum()), trace
        with mappable_log():
            return self._evaluator.log_prob(trace), trace

    @contextmanager
    def on(self, arguments: Mapping[int, Any]) -> Iterator[None]:
        """Have other data at some positions meanwhile."""
        before = self.data
        self.data = tuple(arguments.get(place, value) for place, value in enumerate(before))
        try:
            yield
        finally:
            self.data = before

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
        model = config_enumerate(poutine.condition(self.model, data=values))
        with poutine.block(), Enumerate(self.first_dim):
            enumerated = prune_subsample_sites(poutine.trace(model).get_trace(*self.data))
        enumerated.compute_log_prob()
        enumerated.pack_tensors()
        with mappable_log(), _any_of_none(), poutine.trace() as tracing:
            _sample_posterior_from_trace(model, enumerated, 1, False, *self.data)
        return tracing.trace


@contextmanager
def mappable_log() -> Iterator[None]:
    """Sums over discrete values by a logarithm that torch.func can transform, as Pyro's cannot."""
    pyros = torch_log.safe_log  # pyright: ignore[reportPrivateImportUsage]
    torch_log.safe_log = _safe_log  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        torch_log.safe_log = pyros  # pyright: ignore[reportPrivateImportUsage]


@contextmanager
def _any_of_none() -> Iterator[None]:
    """Draw discrete values in equal parts where none has a density, as at draws in tails that round to an edge."""
    pyros = torch_sample.dist  # pyright: ignore[reportPrivateImportUsage]
    torch_sample.dist = SimpleNamespace(Categorical=_categorical)  # pyright: ignore[reportPrivateImportUsage]
    try:
        yield
    finally:
        torch_sample.dist = pyros  # pyright: ignore[reportPrivateImportUsage]


def _categorical(logits: Tensor) -> Categorical:
    possible = (logits < math.inf).all(-1, keepdim=True) & (logits > -math.inf).any(-1, keepdim=True)
    return Categorical(logits=torch.where(possible, logits, 0.0))


def _safe_log(x: Tensor) -> Tensor:
    """Return the logarithm, with a derivative of zero at zero."""
    return torch.where(x > 0, x.clamp(min=torch.finfo(x.dtype).tiny).log(), -math.inf)


class Enumerate(EnumMessenger):
    """Pyro's handler, which reads ``value.data``, as vmap does not allow."""

    def _pyro_post_sample(self, msg: Any) -> None:
        value = msg["value"]
        if isinstance(value, Tensor):
            msg["value"] = _Shape(value)
            super()._pyro_post_sample(msg)
            msg["value"] = value


class _Shape:
    """The shape of a tensor."""

    def __init__(self, value: Tensor) -> None:
        self.shape, self.data, self.dim = value.shape, self, value.dim
