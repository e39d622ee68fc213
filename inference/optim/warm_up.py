"""KL warm-up: a loss under which the divergence from the prior of the rows' latent variables comes in by and by.

The bound is E[log p(x | z)] + β E[log p(z) - log q(z)], with β rising from 0 to 1. At first the decoder learns to use
z; from the end of the warm-up on the loss is the ELBO.

References
----------
1. Sønderby, Raiko, Maaløe, Sønderby and Winther (2016), Ladder variational autoencoders, NeurIPS.
2. Bowman, Vilnis, Vinyals, Dai, Jozefowicz and Bengio (2016), Generating sentences from a continuous space, CoNLL.
"""

from collections.abc import Callable
from typing import Any

from pyro.infer import Trace_ELBO
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..traces.draws import is_latent, is_local


class LocalScale(Messenger):
    """Multiplies the log density of every latent site in a plate over the rows of the data."""

    def __init__(self, data: tuple, scale: float) -> None:
        super().__init__()
        self.data, self.scale = data, scale

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if is_latent(msg) and is_local(msg, self.data):
            msg["scale"] = msg["scale"] * self.scale


def kl_warm_up(num_steps: int, *, start: float = 0.0, num_particles: int = 1) -> Callable[..., Tensor]:
    """A loss for `svi` whose β rises in a straight line from ``start`` to 1: minus the ELBO from then on.

    For any model with latent variables of the rows; the global ones' divergence counts in full all along. The loss
    counts its calls: make one for every fit.

    Parameters
    ----------
    num_steps : int
        Calls before β is 1. Take less than a third of those of the fit: later its step size is small.
    start : float
        β at the first call, between 0 and 1.
    num_particles : int
        Draws of the guide a step, averaged over.

    Returns
    -------
    callable
        ``(model, guide, *data) -> Tensor``.

    Raises
    ------
    ValueError
        If an option is out of range.
    """
    if num_steps < 1 or num_particles < 1:
        raise ValueError(
            f"kl_warm_up: num_steps and num_particles must be at least 1, got {num_steps}, {num_particles}"
        )
    if not 0 <= start <= 1:
        raise ValueError(f"kl_warm_up: start must lie between 0 and 1, got {start}")
    loss = Trace_ELBO(num_particles=num_particles)
    taken = 0

    def kl_warm_up(model: Callable, guide: Callable, *data: Any) -> Tensor:
        nonlocal taken
        scale = start + (1 - start) * min(1.0, taken / num_steps)
        taken += 1
        scaled = LocalScale(data, scale)
        return loss.differentiable_loss(scaled(model), scaled(guide), *data)

    kl_warm_up.changes = True  # pyright: ignore[reportFunctionMemberAccess] (so that it is never compiled)
    return kl_warm_up
