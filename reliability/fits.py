"""Small fits by every method that keeps checkpoints: name -> ``(**checkpoint) -> Posterior``."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from guidebook import guides
from guidebook.inference import (
    Posterior,
    cavi,
    closed_form,
    dadvi,
    em,
    fit,
    gibbs,
    hmc,
    mcem,
    metropolis,
    nuts,
    pathfinder,
    svi,
)
from guidebook.models import gmm, linear, logistic, ppca

Case = Callable[..., Posterior]


def _rows(count: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, columns, generator=generator, dtype=torch.float64)
    return x, (x.sum(1) + torch.randn(count, generator=generator, dtype=torch.float64) > 0).double()


X, Y = _rows(60, 3)
CLUSTERS = torch.cat([X - 2, X + 2])
QUIET: dict[str, Any] = {"progress": False}
MODEL = logistic.model
WARM: dict[str, Any] = {"num_draws": 60, "num_warmup": 120, "engine": "pyro"}

CASES: dict[str, Case] = {
    "svi": partial(svi, MODEL, guides.mean_field, X, Y, num_steps=1000, engine="eager", **QUIET),
    "svi in minibatches": partial(svi, MODEL, guides.low_rank, X, Y, num_steps=600, batch_size=16, **QUIET),
    "svi compiled": partial(svi, MODEL, guides.full_rank, X, Y, engine="compiled", **QUIET),
    "dadvi": partial(dadvi, MODEL, X, Y, num_restarts=2, **QUIET),
    "em": partial(em, gmm.em_steps(num_components=3), CLUSTERS, num_restarts=4, tol=1e-12),
    "em, restarts in turn": partial(em, ppca.em_steps(latent_dim=1), X, num_restarts=20, tol=1e-12),
    "cavi": partial(cavi, gmm.cavi_steps(num_components=3), CLUSTERS, num_restarts=4, tol=1e-12),
    "gibbs": partial(gibbs, gmm.gibbs_steps(num_components=2), CLUSTERS, num_draws=300, num_warmup=100, **QUIET),
    "mcem": partial(mcem, ppca.latent_model, X, num_steps=150, **QUIET),
    "hmc": partial(hmc, MODEL, X, Y, num_draws=60, num_warmup=120, num_chains=1, **QUIET),
    "nuts": partial(nuts, MODEL, X, Y, num_chains=1, **WARM, **QUIET),
    "nuts in processes": partial(nuts, MODEL, X, Y, num_chains=2, **WARM, **QUIET),
    "nuts compiled": partial(nuts, MODEL, X, Y, num_draws=20_000, num_chains=2, engine="xla", **QUIET),
    "metropolis": partial(metropolis, MODEL, X, Y, num_draws=50, num_warmup=3000, thin=20, num_chains=1, **QUIET),
    "pathfinder": partial(pathfinder, MODEL, X, Y, **QUIET),
    "closed_form": partial(closed_form, linear.closed_form, X, Y),
    "fit": partial(fit, MODEL, X, Y, **QUIET),
}
QUICK = ("em", "gibbs", "mcem")
_FEW: dict[str, Any] = {"num_draws": 20, "num_warmup": 30, "num_chains": 2}
SHORT: dict[str, Case] = {  # for faults, one column of their table each
    "svi": partial(CASES["svi"], num_steps=600),
    "dadvi": CASES["dadvi"],
    "pathfinder": CASES["pathfinder"],
    "nuts": partial(CASES["nuts"], **_FEW),
    "hmc": partial(CASES["hmc"], **_FEW),
    "metropolis": partial(CASES["metropolis"], num_warmup=200, thin=2, num_chains=2),
    "mcem": partial(CASES["mcem"], num_steps=100),
    "em": CASES["em"],
    "cavi": CASES["cavi"],
    "gibbs": partial(CASES["gibbs"], num_draws=40, num_warmup=20),
    "closed_form": CASES["closed_form"],
    "fit": CASES["fit"],
    "nuts compiled": partial(CASES["nuts compiled"], num_draws=200, num_warmup=100),  # last: no fork after JAX
}
