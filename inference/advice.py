"""What to call next when a posterior falls short: one row per fault, in calls that exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .diagnostics import MIN_ESS
from .info import ExternalInfo
from .posterior import Posterior

if TYPE_CHECKING:
    import pandas as pd

SAMPLERS = {"nuts": "model", "hmc": "model", "metropolis": "model", "gibbs": "steps"}  # and what each takes first
STEPWISE = {"em": "steps", "cavi": "steps", "mcem": "latent_model"}  # likewise, methods that take num_steps
AUTOGUIDES = {
    "AutoNormal": "mean_field",
    "AutoDiagonalNormal": "mean_field",
    "AutoLowRankMultivariateNormal": "low_rank",
    "AutoMultivariateNormal": "full_rank",
    "AutoLaplaceApproximation": "laplace",
}
RICHER = {"mean_field": "full_rank", "low_rank": "full_rank", "laplace": "full_rank", "full_rank": "flow"}
BY_NUTS = "nuts(model, …)"
MORE_STEPS = 4  # times as many as were not enough
FEW_DIMENSIONS = 5  # up to which a full mass matrix is learned from few draws
NEARLY_MIXED = 1.1  # R̂ above which chains are in different places, which no mass matrix mends


def next_call(fault: str, posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return what to call next for one of `FAULTS` of a posterior, whose ``quantities`` are those of `Comparison`."""
    return FAULTS[fault](posterior, quantities)


def for_reference(fault: str, posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return what to call next for a reference that was refused for one of `FAULTS`."""
    entries = sum(value.numel() for value in (posterior.info.ess or {}).values())
    dense = getattr(posterior.info, "metric", None) == "dense" and entries > FEW_DIMENSIONS
    mixes_slowly = (
        fault in ("chains disagree", "too few effective draws") and np.max(quantities["r_hat"]) < NEARLY_MIXED
    )
    if dense and mixes_slowly:
        return "nuts(model, …, dense_mass=False)"
    return next_call(fault, posterior, quantities)


def more_draws(posterior: Posterior, times: float) -> str:
    """Return the call that takes ``times`` as many draws per chain, to two significant digits."""
    return call(posterior, num_draws=_rounded(times * _length(posterior)))


def call(posterior: Posterior, **options: Any) -> str:
    """Return the call that made a posterior, with other options."""
    info = posterior.info
    if isinstance(info, ExternalInfo):
        return f"{info.method} with {' and '.join(f'{name}={value}' for name, value in options.items())}"
    takes = f"model, {info.guide}" if info.guide else (SAMPLERS | STEPWISE).get(info.method, "model")
    return f"{info.method}({takes}, …, {', '.join(f'{name}={value}' for name, value in options.items())})"


def _richer(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return a guide that can have the shape that this one lacks; for samplers, longer chains."""
    if posterior.info.method in SAMPLERS:
        return _longer(posterior, quantities)
    guide = _family(posterior)
    if posterior.info.method == "svi" and guide in RICHER:
        return f"svi(model, {RICHER[guide]}, …)"
    return BY_NUTS if guide == "flow" else f"svi(model, full_rank, …) or {BY_NUTS}"


def _longer(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return the same method for longer."""
    info = posterior.info
    if info.method in SAMPLERS:
        return call(
            posterior, num_warmup=_rounded(2 * getattr(info, "num_warmup", 500)), num_draws=2 * _length(posterior)
        )
    curve = getattr(info, "losses", getattr(info, "objective", None))
    return BY_NUTS if curve is None else call(posterior, num_steps=_rounded(MORE_STEPS * len(curve)))


def _farther(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return more steps, of which a fit so far off has not had enough, unless it stands at the mode already."""
    if posterior.info.method != "svi" or _family(posterior) == "laplace":
        return _richer(posterior, quantities)
    return f"{_longer(posterior, quantities)} or {BY_NUTS}"


def _smaller_steps(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return smaller steps of a Hamiltonian sampler."""
    return f"{call(posterior, target_accept=0.95)}, or a non-centred form of the model"


def _enough_draws(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return as many draws as make twice the effective ones that are needed."""
    return more_draws(posterior, max(2.0, 2 * MIN_ESS / max(1.0, float(np.min(quantities["ess"])))))


def _by_nuts(posterior: Posterior, quantities: pd.DataFrame) -> str:
    return BY_NUTS


def _another_reference(posterior: Posterior, quantities: pd.DataFrame) -> str:
    return f"{BY_NUTS} as the reference"


FAULTS: dict[str, Callable[[Posterior, pd.DataFrame], str]] = {
    "too narrow": _richer,
    "too wide": _richer,
    "off centre": _richer,
    "far off": _farther,
    "not finite": _by_nuts,
    "not converged": _longer,
    "chains disagree": _longer,
    "too few effective draws": _enough_draws,
    "diverged": _smaller_steps,
    "a point": _another_reference,
    "an approximation": _another_reference,
}


def _family(posterior: Posterior) -> str | None:
    """Return the guide's name, that of the family for an autoguide class."""
    return AUTOGUIDES.get(posterior.info.guide or "", posterior.info.guide)


def _length(posterior: Posterior) -> int:
    return next(iter(posterior.draws.values())).shape[1]


def _rounded(count: float) -> int:
    """Round up to two significant digits."""
    unit = 10 ** max(0, len(str(int(count))) - 2)
    return int(-(-count // unit) * unit)
