"""A model's own updates by batches, as `online` takes them."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..posterior import Posterior, point_draws
from ..streams import Stream
from .learned import Learned
from .warm_start import Init

if TYPE_CHECKING:
    from ...models import OnlineSteps


class ByUpdates:
    """Parameters that a model's online steps move, as if there were ``num_rows`` rows in all.

    A ValueError says which of the options of guides, ``of_guide``, was given.
    """

    dtype = None

    def __init__(self, steps: "OnlineSteps", rows: Stream, num_rows: int, init: Init | None, **of_guide: Any) -> None:
        if given := [name for name, value in of_guide.items() if value is not None]:
            raise ValueError(f"online: {given[0]} belongs to a model and its guide, and a model's own steps were given")
        self.like = rows.first
        self._steps, self._num_rows = steps, num_rows
        self._params = None if init is None else dict(init.params if isinstance(init, Posterior) else init)

    @torch.no_grad()
    def begin(self, batch: tuple) -> None:
        """Start from a batch, unless there is a fit to go on from."""
        if self._params is None:
            self._params = self._steps.init(*batch)

    @torch.no_grad()
    def learn(self, step_size: float, number: int, batch: tuple) -> float:
        """Move by a step towards what a batch says; return how well it was predicted before, in nats."""
        self._params, score = self._steps.update(self._params, step_size, self._num_rows, *batch)
        return float(score)

    def state(self) -> Any:
        """Return the parameters."""
        return self._params

    def restore(self, state: Any) -> None:
        """Set the parameters."""
        self._params = state

    def cause(self) -> str:
        """Return what to do if a score is not finite."""
        return ": take larger batches, or a larger offset"

    @torch.no_grad()
    def learned(self, num_draws: int, scores: Tensor) -> Learned:
        """Return draws from q, or estimates."""
        params = self._params
        assert params is not None
        if not all(bool(value.isfinite().all()) for value in params.values()):  # which no later batch has noticed
            raise ArithmeticError("online: the last batch led to parameters that are not finite: take larger batches")
        if self._steps.draw is None:
            draws = point_draws({name: value for name, value in params.items() if name != "totals"})
            return Learned(draws, params, {"is_point": True})
        draws = {name: value[None] for name, value in self._steps.draw(params, num_draws).items()}
        return Learned(draws, params, {"is_point": False})
