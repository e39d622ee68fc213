"""Effect handlers that make a user's model one that every method can take, without changing its posterior."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pyro.distributions import ImproperUniform, Independent, MaskedDistribution
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import SubsampleMessenger
from torch import Tensor
from torch.distributions import Bernoulli, biject_to

RADIUS = 2.0  # of the uniform starts on the unconstrained scale, as in Stan


class StartFlat(Messenger):
    """Gives flat priors, which have no draws, a value to start from: uniform within (-2, 2), unconstrained."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["value"] is None and is_flat(msg["fn"]):
            init = (msg["infer"] or {}).get("init")
            msg["value"] = (
                uniform_value(msg["fn"], self.device) if init is None else init().expand(msg["fn"].shape()).clone()
            )


def is_flat(fn: Any) -> bool:
    """Whether a distribution is an ``ImproperUniform``, or made of one."""
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, ImproperUniform)


def uniform_value(fn: Any, device: torch.device, radius: float = RADIUS) -> Tensor:
    """Return a value of a distribution's support, uniform within ``radius`` of 0 on the unconstrained scale."""
    transform, shape = biject_to(fn.support), fn.shape()
    if transform.domain.event_dim or transform.codomain.event_dim:  # torch imports sympy to compute a shape
        shape = transform.inverse_shape(shape)
    return transform(radius * (2 * torch.rand(shape, device=device) - 1))


class Promote(Messenger):
    """Gives models floating-point values in one dtype, whatever the dtype of their prior's arguments.

    Observed truth values, and whole numbers of a Bernoulli, become numbers of that dtype, as their density takes them.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        if not msg["is_observed"] or not isinstance(value, Tensor) or value.is_floating_point() or value.is_complex():
            return
        if value.dtype == torch.bool or is_binary(msg["fn"]):
            msg["value"] = value.to(self.dtype)

    def _pyro_post_sample(self, msg: dict[str, Any]) -> None:
        value = msg["value"]
        if isinstance(value, Tensor) and value.is_floating_point():  # of latent sites too, where they are given
            msg["value"] = value.to(self.dtype)


def is_binary(fn: Any) -> bool:
    """Whether a distribution is a Bernoulli, or made of ones."""
    while inner := getattr(fn, "base_dist", None) or getattr(fn, "component_distribution", None):
        fn = inner
    return isinstance(fn, Bernoulli)


class Unmask(Messenger):
    """Gives chosen latent sites their whole prior, where a mask left out entries that influence nothing else.

    Such entries have no posterior; with their prior, which integrates to one, the evidence and all other sites stay
    the same.
    """

    def __init__(self, names: set[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["name"] in self.names:
            msg["mask"] = None
            msg["fn"] = without_mask(msg["fn"])


def without_mask(fn: Any) -> Any:
    """Return a distribution without the masks of ``Distribution.mask``."""
    if isinstance(fn, MaskedDistribution):
        return without_mask(fn.base_dist)
    if isinstance(fn, Independent):
        return Independent(without_mask(fn.base_dist), fn.reinterpreted_batch_ndims)
    return fn


def masked_entries(site: Mapping[str, Any]) -> Tensor:
    """Return which entries of a site's value a mask leaves without a density of their own; shape of the value."""
    fn, masked = site["fn"], torch.zeros_like(site["value"], dtype=torch.bool)
    masks = [(site["mask"], fn.event_dim)]
    while isinstance(fn, Independent | MaskedDistribution):
        if isinstance(fn, MaskedDistribution):
            masks.append((fn._mask, fn.event_dim))
        fn = fn.base_dist
    for mask, event_dims in masks:
        if mask is not None:
            kept = torch.as_tensor(mask, device=masked.device)
            masked = masked | ~kept.reshape(kept.shape + (1,) * event_dims)
    return masked


class WithWeights:
    """A model whose modules have given weights while it runs: they are read from the modules, whatever Pyro is told."""

    def __init__(self, model: Callable[..., Any], weights: list[tuple[torch.nn.Parameter, Tensor]]) -> None:
        self.model, self.weights = model, weights

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        before = self._exchange([value for _, value in self.weights])
        try:
            return self.model(*args, **kwargs)
        finally:
            self._exchange(before)

    def _exchange(self, values: list[Tensor]) -> list[Tensor]:
        """Give the weights other values, and return those they had; a graph that is recorded knows nothing of it."""
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            before = [weight.data for weight, _ in self.weights]
            for (weight, _), value in zip(self.weights, values, strict=True):
                weight.data = value
        return before


class FullPlates:
    """A model whose plates take all their rows, although it subsamples by itself."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model = model

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model."""
        with _full_plates():
            return self.model(*args, **kwargs)


@contextmanager
def _full_plates() -> Iterator[None]:
    subsample = SubsampleMessenger._subsample

    def take_all(name: str, size: Any = None, subsample_size: Any = None, *args: Any, **kwargs: Any) -> Any:
        return subsample(name, size, size, *args, **kwargs)

    SubsampleMessenger._subsample = staticmethod(take_all)
    try:
        yield
    finally:
        SubsampleMessenger._subsample = staticmethod(subsample)
