"""Online EM of a mixture of counts: rows that come in batches, each of which is read once.

Cappé and Moulines (2009), On-line expectation-maximization algorithm for latent data models, JRSS B 71, section 2.
"""

import torch
from torch import Tensor

from .._shared.responsibilities import weighted_sums
from .._shared.steps import OnlineSteps, Params
from .distributions import coefficient, finite_log
from .prior import Family, check, counts_of
from .start import cluster

_FIRST = 30  # iterations of EM on the first batch
_SHARED = 0.01  # of a component's start, which is that of all rows: no count is then impossible


def online_steps(num_components: int = 4, family: Family = "poisson") -> OnlineSteps:
    """Return steps of online EM, Cappé and Moulines (2009), equations 13 and 14.

    Parameters
    ----------
    num_components : int
        K.
    family : {"poisson", "multinomial"}

    Returns
    -------
    OnlineSteps
        For batches ``(x,)``. Parameters are ``weights``, and ``rate`` or ``probs``; for the latter also ``totals``
        (k,), the mean total of a component's rows. The start is by k-means and EM on the first batch. The score is the
        mean log density of a row.
    """

    def read(x: Tensor) -> Tensor:
        return counts_of(x.double())

    def init(x: Tensor) -> Params:
        x = read(x)
        check(num_components, family, len(x))
        everywhere = x.sum(0).clamp(min=1) / len(x)
        counts, sums = (value / len(x) for value in cluster(x, num_components, family, tries=10))
        sums = (1 - _SHARED) * sums + _SHARED * counts.unsqueeze(-1) * everywhere
        params = _estimates(counts, sums, family)
        for _ in range(_FIRST):
            params, _ = update(params, 1 - _SHARED, len(x), x)
        return params

    def update(params: Params, step_size: float, num_rows: int, x: Tensor) -> tuple[Params, Tensor]:
        x = read(x)
        weights, intensity = params["weights"], params["rate" if family == "poisson" else "probs"]
        constant = weights.log() - (intensity.sum(-1) if family == "poisson" else 0.0)
        found = weighted_sums(constant, finite_log(intensity), (part.mT for part in x.split(4096)))
        score = (found.log_norm + coefficient(x, family == "multinomial").sum()) / len(x)
        before = weights.unsqueeze(-1) * intensity
        if family == "multinomial":
            before = before * params["totals"].unsqueeze(-1)
        counts = torch.lerp(weights, found.counts / len(x), step_size)
        return _estimates(counts, torch.lerp(before, found.sums / len(x), step_size), family), score

    return OnlineSteps(init, update)


def _estimates(counts: Tensor, sums: Tensor, family: Family) -> Params:
    """Return the maximum of the likelihood given the share of rows per component and their sums per row of the data."""
    weights = counts / counts.sum()
    if family == "poisson":
        return {"weights": weights, "rate": sums / counts.unsqueeze(-1)}
    totals = sums.sum(-1)
    return {"weights": weights, "probs": sums / totals.unsqueeze(-1), "totals": totals / counts}
