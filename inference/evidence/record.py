"""An estimate of the evidence, with its diagnostics and warnings."""

import math
from typing import Any, NamedTuple

from torch import Tensor

from ..diagnostics import MAX_K_HAT

MAX_K_HAT_WITH_VARIANCE = 0.5
MIN_WEIGHTS = 10  # effective weights
MAX_MASS_BEYOND = 0.005  # of the posterior, beyond the guide's draws
MAX_R_HAT = 1.1  # of a bridge's draws
MIN_DRAWS = 20  # effective draws of the posterior
MIN_ACCEPTANCE = 0.4  # in a tenth of the path
MAX_RELATIVE_MSE = 0.1  # of a bridge
DIRECTIONS = {"lower": "a lower bound in expectation", "upper": "an upper bound in expectation"}


class Evidence(NamedTuple):
    """An estimate of log p(x).

    Attributes
    ----------
    estimate : float
        In nats.
    error : float
        Its standard error, in nats. For weights it includes what their fitted tail says of larger ones, and twice the
        posterior's mass beyond the guide's draws.
    bound : {"lower", "upper", "none"}
        Which kind of bound on log p(x) the estimate is, in expectation.
    diagnostics : dict
        Weights: ``ess`` and ``k_hat`` (of the worst row), ``mean_log_weight`` (the bound with one weight) and ``bias``
        (of the estimate, to second order), in nats; of a guide with 1,000 draws or more also ``mass_beyond``, the
        largest share of the posterior beyond its draws, and ``site_beyond``, where. Annealing, in addition:
        ``accept_rate``, ``least_accept_rate`` (lowest of the tenths of the path), ``num_temperatures``. Bridge:
        ``iterations``, ``converged``, ``relative_mse``, ``posterior_ess``, ``r_hat``. Draws that show exchangeable
        components in one order: ``components``, their number, and ``component_sites``.
    method : str
    seconds : float
    seed : int
    per_row : Tensor, shape (n,), or None
        One estimate per row, in nats, if every latent variable belongs to a row; their sum is ``estimate``.
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
        return f"{words}; {'; '.join(self.warnings) or 'no warnings'}."

    @property
    def warnings(self) -> list[str]:
        """Reasons to distrust the estimate, one clause each."""
        found, seen = [], self.diagnostics
        k_hat, size, bias = seen.get("k_hat"), seen.get("ess"), seen.get("bias")
        if k_hat is not None and k_hat > MAX_K_HAT:
            found.append(f"k̂ is {k_hat:.2f}, above {MAX_K_HAT}: the error is underestimated, use a better proposal")
        elif k_hat is not None and k_hat > MAX_K_HAT_WITH_VARIANCE:
            found.append(
                f"k̂ is {k_hat:.2f}, above 0.5: the weights have infinite variance, so that the error is a rough one"
            )
        if size is not None and size < MIN_WEIGHTS:
            found.append(f"only {size:.1f} effective weights: draw more, or from a better proposal")
        if seen.get("mass_beyond", 0.0) > max(MAX_MASS_BEYOND, self.error / 3):
            share, site = 100 * seen["mass_beyond"], seen["site_beyond"]
            found.append(f"about {share:.2g} % of the posterior lies beyond the draws of {site!r}: use a wider guide")
        if bias is not None and abs(bias) > self.error / 2:
            found.append(f"about {abs(bias):.2g} nats too {'high' if self.bound == 'upper' else 'low'}: draw more")
        if seen.get("least_accept_rate", 1.0) < MIN_ACCEPTANCE:
            rate = seen["least_accept_rate"]
            found.append(f"the acceptance rate was {rate:.2f} in a tenth of the path: take more temperatures")
        if not seen.get("converged", True):
            found.append("the iteration did not converge")
        if seen.get("r_hat", 1.0) > MAX_R_HAT:
            found.append(
                f"R̂ of the draws is {seen['r_hat']:.2f}, above {MAX_R_HAT}: the chains disagree, no normal fits them"
            )
        if seen.get("posterior_ess", math.inf) < MIN_DRAWS:
            found.append(f"the draws are worth {seen['posterior_ess']:.0f} independent ones: draw more")
        if seen.get("relative_mse", 0.0) > MAX_RELATIVE_MSE:
            found.append("the normal fits the posterior poorly: draw more, or use ais")
        if components := seen.get("components"):
            sites, orders = " and ".join(seen["component_sites"]), math.lgamma(components + 1)
            found.append(
                f"the model stays the same with the {components} components of {sites} exchanged, and the draws show "
                f"them in one order: add log {components}! = {orders:.2f} if the orders are modes apart"
            )
        return found
