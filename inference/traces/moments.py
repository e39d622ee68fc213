"""What a guide draws at some setting of its parameters: means and standard deviations.

It is drawn from with the same random numbers at every setting, so that few draws tell small differences.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .draws import draw_chunk
from .validation import unvalidated

DRAWS = 32
MAX_NUMBERS = 200_000  # in the draws of one measurement
SMALL = 0.1  # least unit of a parameter of the model, for those near zero


class Moments(NamedTuple):
    """Means and standard deviations of what the guide draws, then the model's parameters with a spread of zero."""

    mean: Tensor  # (quantity,)
    sd: Tensor  # (quantity,)
    unit: Tensor  # (quantity,): the sd; for a point, the size of the values in its tensor


def moments_at(
    guide: Callable | None, data: tuple, params: Sequence[Tensor], points: Sequence[Tensor] = ()
) -> Callable[[Tensor], Moments]:
    """Return a function of a vector of all ``params`` that measures what the guide draws there.

    ``points`` are those parameters that belong to the model. The parameters and torch's generator stay as they are.
    """
    with torch.no_grad(), torch.random.fork_rng(), unvalidated():
        size = 0 if guide is None else sum(value[0].numel() for value in _draws(guide, data, 1))
    count = min(DRAWS, max(4, MAX_NUMBERS // max(1, size)))

    @torch.no_grad()
    def measure(position: Tensor) -> Moments:
        before = [p.clone() for p in params]
        put(position, params)
        try:
            with torch.random.fork_rng(), unvalidated():
                torch.manual_seed(0)
                draws = [] if guide is None else _draws(guide, data, count)
            sd = [value.std(0) for value in draws]
            means = [value.mean(0) for value in draws]
            own = [_size(p) for p in points]
            mean = _flat([*means, *points], position)
            spread = _flat([*sd, *(torch.zeros_like(p) for p in points)], position)
            sizes = [torch.where(s > 0, s, _size(m)) for s, m in zip(sd, means, strict=True)]
            return Moments(mean, spread, _flat([*sizes, *own], position))
        finally:
            for p, value in zip(params, before, strict=True):
                p.copy_(value)

    return measure


def put(vector: Tensor, params: Sequence[Tensor]) -> None:
    """Copy a vector of all parameters into them, in place."""
    with torch.no_grad():
        for part, p in zip(vector.split([p.numel() for p in params]), params, strict=True):
            p.copy_(part.view(p.shape))


def flat(params: Sequence[Tensor]) -> Tensor:
    """Return all parameters in one vector."""
    return torch.cat([p.detach().reshape(-1).to(params[0]) for p in params])


def _draws(guide: Callable, data: tuple, count: int) -> list[Tensor]:
    """Return draws of the guide's sites that are no mere transformations of others, (draw, *site) each."""
    values, _ = draw_chunk(guide, data, count)
    auxiliary = {name: value for name, value in values.items() if name.endswith(("_unconstrained", "_latent"))}
    return [value.double() for value in (auxiliary or values).values() if value.is_floating_point()]


def _size(value: Tensor) -> Tensor:
    return value.double().square().mean().sqrt().clamp(min=SMALL).expand(value.shape)


def _flat(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_zeros(0).double(), *(part.detach().double().reshape(-1) for part in parts)]).cpu()
