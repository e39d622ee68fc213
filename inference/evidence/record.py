"""An estimate of the evidence, with what speaks for and against it."""

from typing import Any, NamedTuple

from torch import Tensor

from ..diagnostics import MAX_K_HAT

FEW = 10  # effective weights
LOW_ACCEPTANCE = 0.4
DIRECTIONS = {"lower": "a lower bound in expectation", "upper": "an upper bound in expectation"}


class Evidence(NamedTuple):
    """The logarithm of p(x), estimated.

    Attributes
    ----------
    estimate : float
        In nats.
    error : float
        Its standard error, in nats.
    bound : {"lower", "upper", "none"}
        On which side of log p(x) the estimate lies in expectation.
    diagnostics : dict
        ``ess`` and ``k_hat`` of the weights (of the worst row), ``mean_log_weight`` (the bound with one weight) and
        ``bias`` (of the estimate, to second order), in nats; of annealing ``accept_rate``, ``least_accept_rate`` (in
        a tenth of the path), ``num_temperatures``; of a bridge ``iterations``, ``converged``, ``relative_mse``,
        ``posterior_ess``.
    method : str
    seconds : float
    seed : int
    per_row : Tensor, shape (n,), or None
        One estimate a row, in nats, where the model's latent variables are all the rows' own; they add up to
        ``estimate``.
    """

    estimate: float
    error: float
    bound: str
    diagnostics: dict[str, Any]
    method: str
    seconds: float
    seed: int
    per_row: Tensor | None = None

    def __str__(self) -> str:
        words = f"log p(x) = {self.estimate:.3f} ± {self.error:.2g} nats by {self.method}"
        if self.bound in DIRECTIONS:
            words += f", {DIRECTIONS[self.bound]}"
        return f"{words}; {'; '.join(self.worries) or 'nothing speaks against it'}."

    @property
    def worries(self) -> list[str]:
        """What speaks against the estimate, a clause each; empty where nothing does."""
        found, seen = [], self.diagnostics
        k_hat, size, bias = seen.get("k_hat"), seen.get("ess"), seen.get("bias")
        if k_hat is not None and k_hat > MAX_K_HAT:
            found.append(f"k̂ is {k_hat:.2f}, above {MAX_K_HAT}: the error is too small, take a better proposal")
        if size is not None and size < FEW:
            found.append(f"only {size:.1f} weights count: take more, or a better proposal")
        if bias is not None and abs(bias) > self.error / 2:
            found.append(
                f"about {abs(bias):.2g} nats too {'high' if self.bound == 'upper' else 'low'}: take more draws"
            )
        if seen.get("least_accept_rate", 1.0) < LOW_ACCEPTANCE:
            found.append(
                f"transitions were accepted at a rate of {seen['least_accept_rate']:.2f} in a tenth of the path"
            )
        if not seen.get("converged", True):
            found.append("the iteration did not settle")
        if seen.get("relative_mse", 0.0) > 0.1:
            found.append("the normal fits the posterior badly: draw more, or take ais")
        return found
