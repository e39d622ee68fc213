"""Densities without checks of their arguments, which neither vmap nor a recorded graph can run."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import pyro
import torch
from pyro.distributions import Categorical, OrderedLogistic
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import Distribution


@contextmanager
def unvalidated() -> Iterator[None]:
    """Leave out checks of arguments and values, also in distributions that ask for them.

    ``pyro.validation_enabled(False)`` alone does not reach those made with ``validate_args=True``, nor copies by
    ``expand`` of those made before, such as every prior of a ``PyroSample``.
    """
    plain, writing = Distribution.__init__, OrderedLogistic.__init__

    def init(self: Distribution, *args: Any, validate_args: bool | None = None, **kwargs: Any) -> None:
        plain(self, *args[:2], **kwargs)

    with pyro.validation_enabled(False), _Unvalidated():
        Distribution.__init__, OrderedLogistic.__init__ = init, _ordered_logistic
        try:
            yield
        finally:
            Distribution.__init__, OrderedLogistic.__init__ = plain, writing


def _ordered_logistic(
    self: OrderedLogistic, predictor: Tensor, cutpoints: Tensor, validate_args: bool | None = None
) -> None:
    """Make the distribution as Pyro does, but without writing into a tensor, which vmap cannot map."""
    below = torch.sigmoid(cutpoints - predictor.unsqueeze(-1))
    self.predictor = predictor.expand(below.shape[:-1])
    self.cutpoints = cutpoints.expand(below.shape)
    probs = torch.cat([below[..., :1], below[..., 1:] - below[..., :-1], 1 - below[..., -1:]], -1)
    Categorical.__init__(self, probs, validate_args=validate_args)


class _Unvalidated(Messenger):
    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        msg["fn"] = _without_checks(msg["fn"])


def _without_checks(fn: Any) -> Any:
    """Return a distribution that checks nothing, nor do those that it is made of: a copy, if it did."""
    if not isinstance(fn, Distribution):
        return fn
    inner = {name: part for name, part in vars(fn).items() if isinstance(part, Distribution)}
    changed = {name: new for name, part in inner.items() if (new := _without_checks(part)) is not part}
    if not changed and not vars(fn).get("_validate_args", False):
        return fn
    fn = copy(fn)
    vars(fn).update(changed, _validate_args=False)
    return fn
