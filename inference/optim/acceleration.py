"""Anderson's acceleration of EM, which crawls where much information is missing.

An iteration of EM takes parameters x to G(x). Its steps G(x) − x vanish at an optimum, and how they changed over the
last iterations says where they would. They vanish at a saddle, too, along directions in which they grow from one
iteration to the next: there the jump is as long, and away from it. A jump counts where the objective does not fall;
elsewhere EM's own step does, and the memory begins anew.

References
----------
1. Walker and Ni (2011), Anderson acceleration for fixed-point iterations, SIAM Journal on Numerical Analysis 49: the
   unconstrained form, section 2.
2. Henderson and Varadhan (2019), Damped Anderson acceleration with restarts and monotonicity control for accelerating
   EM and EM-like algorithms, Journal of Computational and Graphical Statistics 28.
3. Dauphin, Pascanu, Gulcehre, Cho, Ganguli and Bengio (2014), Identifying and attacking the saddle point problem in
   high-dimensional non-convex optimization, NIPS: section 4, Newton's step with absolute eigenvalues.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from .restarts import Params, State, rounding_of

MEMORY = 5  # iterations
LEAST_STEP = 1e-8  # of a parameter: what is less may be rounding
LEAST = 1e-10  # singular values, as a share of the largest: directions that steps do not tell apart


class Anderson:
    """What the last iterations of a batch of restarts changed, and where that leads.

    Attributes
    ----------
    last : tuple of Tensor, optional
        Parameters before the latest M-step and the step that it takes from there, each (restart, number).
    points, steps : list of Tensor
        How these changed from one iteration to the next, latest last; zero before a restart's memory begins.
    """

    def __init__(self) -> None:
        self.last: tuple[Tensor, Tensor] | None = None
        self.points: list[Tensor] = []
        self.steps: list[Tensor] = []

    def advance(self, state: State, image: Params, e_step: Callable[[Params], State]) -> State:
        """Return the states after a jump, for restarts whose objective is no lower there; for others, at the image.

        ``image`` are the parameters that the M-step finds from ``state``.
        """
        size = state.objective.numel()
        lengths = [value.numel() // size for value in image.values()]
        point = _flat([state.params[name] for name in image], size)
        step = _flat(image.values(), size) - point
        if self.last is not None:
            self.points = [*self.points, point - self.last[0]][-MEMORY:]
            self.steps = [*self.steps, step - self.last[1]][-MEMORY:]
        self.last = point, step
        parts = zip(image.items(), self._further(point, step, lengths).split(lengths, 1), strict=True)
        try:
            jumped = e_step({name: value + by.reshape(value.shape) for (name, value), by in parts})
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            jumped = state._replace(objective=torch.full_like(state.objective, torch.nan))
        lower = ~(jumped.objective >= state.objective).reshape(-1)  # or not a number
        if not lower.any():
            return jumped
        for change in (*self.points, *self.steps):
            change[lower] = 0
        if lower.all():
            return e_step(image)
        index = lower.nonzero()[:, 0]
        others = e_step({name: value[index] for name, value in image.items()})
        return jumped.map(lambda ours, other: ours.index_copy(0, index, other), others)

    def keep(self, going: list[int]) -> None:
        """Forget all restarts but these."""
        if self.last is not None:
            self.last = self.last[0][going], self.last[1][going]
        self.points, self.steps = ([change[going] for change in changes] for changes in (self.points, self.steps))

    def state(self) -> dict[str, Any]:
        """Return what is remembered, for a checkpoint."""
        return {"last": self.last, "points": self.points, "steps": self.steps}

    def restore(self, state: dict[str, Any], like: Tensor) -> None:
        """Go back to what a checkpoint remembers."""
        point, step = state["last"]
        self.last = point.to(like.device), step.to(like.device)
        self.points, self.steps = ([value.to(like.device) for value in state[name]] for name in ("points", "steps"))

    def _further(self, point: Tensor, step: Tensor, lengths: list[int]) -> Tensor:
        """Return how far beyond the image to jump, (restart, number).

        Of the directions that the memory spans, least squares take away the part of the step that they explain.
        """
        if not self.steps:
            return torch.zeros_like(step)
        steps, points = torch.stack(self.steps, -1), torch.stack(self.points, -1)
        sizes = torch.cat([steps, step[..., None], LEAST_STEP * point[..., None]], -1).abs().amax(-1)
        units = torch.cat([part.amax(1, keepdim=True).expand_as(part) for part in sizes.split(lengths, 1)], 1)
        scaled = torch.cat([steps, points, step[..., None]], -1) / units.clamp(min=1e-300)[..., None]
        size = len(self.steps)
        of_steps, of_points, wanted = scaled.nan_to_num(0, 0, 0).split([size, size, 1], -1)
        left, length, right = torch.linalg.svd(of_steps, full_matrices=False)
        inverse = torch.where(length > LEAST * length[:, :1], 1 / length, 0)
        explained = left.mT @ wanted
        moves = (left.mT @ of_points) @ (right.mT * inverse[:, None])  # of points, for a change of the step by one
        # Eigenvalues -1 / (1 - rate), where steps change by a rate; not every build of torch finds them on a GPU.
        values, vectors = (found.to(moves.device) for found in torch.linalg.eig(moves.cpu()))
        parts = torch.linalg.solve_ex(vectors, explained.to(vectors)).result
        turned = (vectors @ torch.where(values[..., None].real > 0, -parts, parts)).real
        return -((points + steps) @ right.mT @ (inverse[..., None] * turned))[..., 0]


def gained_lately(curve: list[float]) -> float:
    """Return what the last iterations gained together, as many as are remembered; 0 for no more than rounding.

    Accelerated iterations gain ever faster and irregularly, so that the next ones have less to gain than these.
    """
    if len(curve) <= MEMORY:
        return math.inf
    gain = curve[-1] - curve[-1 - MEMORY]
    return gain if gain > rounding_of(curve[-1]) else 0.0


def _flat(values: Iterable[Tensor], size: int) -> Tensor:
    return torch.cat([value.reshape(size, -1) for value in values], 1)
