"""Online EM of a Gaussian mixture: rows that come in batches, each of which is read once.

Cappé and Moulines (2009), On-line expectation-maximization algorithm for latent data models, JRSS B 71, section 2:
sufficient statistics move towards those of a batch, and the M-step maximises at them.
"""

import math

import torch
from torch import Tensor

from .._shared.inputs import rows_of
from .._shared.steps import OnlineSteps, Params
from .conjugate import Statistics
from .covariance import Covariance, Form, align, form_of
from .e_step import by_distances, expect, prepare
from .em import components_at, estimates, start

_STARTS, _FIRST = 4, 30  # k-means starts on the first batch, and iterations of EM after each


def online_steps(num_components: int = 3, covariance: Covariance = "full") -> OnlineSteps:
    """Return steps of online EM, Cappé and Moulines (2009), equations 13 and 14.

    Parameters
    ----------
    num_components : int
        K.
    covariance : {"full", "tied", "diagonal", "isotropic"}

    Returns
    -------
    OnlineSteps
        For batches ``(x,)``. Parameters are ``weights``, ``loc`` and ``covariance``, so that a fit by `em_steps` can go
        on. The start is the best of a few runs of EM on the first batch. The score is the mean log density of a row.
    """
    form = form_of(covariance)

    def init(x: Tensor) -> Params:
        rows = prepare(x.double(), num_components, covariance)
        best, highest = None, -math.inf
        for restart in range(0, 2 * _STARTS, 2):
            params, log_norm = start(restart, rows, num_components, form), torch.tensor(math.nan)
            for _ in range(_FIRST):
                found, log_norm = expect(components_at(params, form), rows, form)
                params = estimates(*found, form)
            if float(log_norm) > highest:
                best, highest = params, float(log_norm)
        if best is None:
            raise ValueError(
                "gmm: every start collapsed on the first batch: take larger batches, fewer components or another "
                "covariance"
            )
        return best

    def update(params: Params, step_size: float, num_rows: int, x: Tensor) -> tuple[Params, Tensor]:
        x = rows_of("gmm", x.double())
        components, degrees = components_at(params, form), form.degrees(params["weights"], x.shape[1])
        (counts, mean, scatter), log_norm = by_distances(components, x, form, params["loc"])[0]
        before = Statistics(
            params["weights"], params["loc"], align(degrees, params["covariance"]) * params["covariance"]
        )
        now = Statistics(counts / len(x), mean, scatter / len(x))
        return estimates(*_blend(before, now, step_size, form), form), log_norm / len(x)

    return OnlineSteps(init, update)


def _blend(before: Statistics, now: Statistics, weight: float, form: Form) -> Statistics:
    """Return (1 - weight) times the sums before plus weight times those now, in terms of means and scatter about them.

    Chan, Golub and LeVeque (1983), Algorithms for computing the sample variance, equation 2.1.
    """
    old, new = (1 - weight) * before.counts, weight * now.counts
    counts = old + new
    gap = torch.where((now.counts > 0).unsqueeze(-1), now.mean - before.mean, 0.0)
    between = form.scatter((old * new / counts).unsqueeze(-1), gap.unsqueeze(-1))
    scatter = (1 - weight) * before.scatter + weight * now.scatter + between
    return Statistics(counts, before.mean + (new / counts).unsqueeze(-1) * gap, scatter)
