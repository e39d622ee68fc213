"""Posteriors with made-up run records, for tests of comparisons and reports."""

from typing import Any

import torch
from torch import Tensor

from guidebook.inference import Posterior
from guidebook.inference.info import EmInfo, NutsInfo, SviInfo


def by_nuts(draws: dict[str, Tensor], divergences: int = 0, **fields: Any) -> Posterior:
    """Draws as NUTS would return them; all ``divergences`` are the first chain's."""
    each = torch.ones(len(next(iter(draws.values()))))
    record = {
        "r_hat": {},
        "ess": {},
        "divergences": divergences * (each.cumsum(0) == 1),
        "accept_rate": 0.8 * each,
        "step_size": 0.1 * each,
        "num_warmup": 500,
        "seconds": 12.3,
        "seed": 0,
        "converged": True,
        "message": "drew all",
    }
    return Posterior(draws, NutsInfo(**{**record, **fields}))


def by_svi(draws: dict[str, Tensor], guide: str = "mean_field", **fields: Any) -> Posterior:
    """Draws as svi would return them; a point has no ELBO and no k̂."""
    is_point = fields.get("is_point", False)
    record = {
        "guide": guide,
        "losses": 60 + 1e4 * torch.exp(-torch.arange(400.0) / 10) + torch.randn(400),
        "elbo": None if is_point else -61.25,
        "elbo_se": None if is_point else 0.1,
        "k_hat": None if is_point else 0.3,
        "seconds": 1.0,
        "seed": 0,
        "converged": True,
        "message": "took all steps, the loss level",
    }
    return Posterior(draws, SviInfo(**{**record, **fields}))


def by_em(draws: dict[str, Tensor], **fields: Any) -> Posterior:
    """A point as em would return it, after four restarts that ended in a degenerate optimum."""
    record = {
        "objective": torch.tensor([-400.0, -250.0, -200.0, -190.0, -181.0, -180.2]),
        "log_likelihood": -180.2,
        "optima": [
            {"objective": -180.2, "restarts": 6, "degenerate": None},
            {"objective": -99.2, "restarts": 4, "degenerate": "a covariance has collapsed"},
        ],
        "seconds": 0.1,
        "seed": 0,
        "converged": True,
        "message": "level",
    }
    return Posterior(draws, EmInfo(**{**record, **fields}))
