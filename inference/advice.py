"""What to call next when a posterior falls short: one row per fault, in calls that exist.

Of ten posteriors with published answers, `dadvi` is good on seven, and draws that `check` has moved, of whatever fast
posterior, on eight or nine, for a fraction of what NUTS costs: so NUTS comes last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .diagnostics import MIN_ESS
from .info import ExternalInfo
from .posterior import Posterior
from .verdict import is_sampler

if TYPE_CHECKING:
    import pandas as pd

NEXT = " Next: "  # what begins the advice at the end of a sentence
TAKES = {"gibbs": "steps", "em": "steps", "cavi": "steps", "mcem": "latent_model"}  # first; all others, the model
STEPWISE = ("svi", "em", "cavi", "mcem")  # methods whose num_steps may be too few
BY_DADVI = "dadvi(model, …)"
BY_NUTS = "nuts(model, …)"
FROM_ITS_DRAWS = "nuts(model, …, init=posterior)"
MOVED = "check(posterior, model, …).improved"
UNTIL_GOOD = "fit(model, …), which tries methods until one is good"
RICHER_GUIDE = "svi(model, a richer guide, …)"
MORE_STEPS = 4  # times as many as were not enough
FEW_DIMENSIONS = 5  # up to which a full mass matrix is learned from few draws
NEARLY_MIXED = 1.1  # R̂ above which chains are in different places, which no mass matrix mends
SMALL_STEPS = 0.97  # mean acceptance from which smaller steps have been tried


def next_call(fault: str, posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return what to call next for one of `FAULTS` of a posterior, whose ``quantities`` are those of `Comparison`."""
    if isinstance(posterior.info, ExternalInfo):
        return _elsewhere(fault, posterior, quantities)
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


def for_chains_that_move(posterior: Posterior | None) -> str:
    """Return what to call next where short chains from a posterior's draws do not settle; None: of a trained guide."""
    return BY_NUTS if posterior is None else _after_chains(posterior)


def longer_chains(posterior: Posterior) -> str:
    """Return the call that takes twice as many draws per chain of a sampler."""
    return more_draws(posterior, 2.0)


def more_draws(posterior: Posterior, times: float) -> str:
    """Return the call that takes ``times`` as many draws per chain, to two significant digits."""
    return draws_call(posterior, _rounded(times * _length(posterior)))


def draws_call(posterior: Posterior, num_draws: int) -> str:
    """Return the call that takes so many draws per chain; by NUTS, if the method that made them takes no number."""
    if isinstance(posterior.info, ExternalInfo):
        return f"{num_draws:,} draws{' per chain' if is_sampler(posterior) else ''} of {posterior.info.method}"
    fixed = not is_sampler(posterior) and posterior.info.method in ("dadvi", "check", "fit")
    return FROM_ITS_DRAWS if fixed else call(posterior, num_draws=num_draws)


def call(posterior: Posterior, **options: Any) -> str:
    """Return the call that made a posterior, with other options."""
    method, guide = _method(posterior), posterior.info.guide
    takes = f"model, {guide}" if guide else TAKES.get(method, "model")
    return f"{method}({takes}, …, {', '.join(f'{name}={value}' for name, value in options.items())})"


def _elsewhere(fault: str, posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return what to do about draws of another library, whose calls are not ours, in words."""
    library = posterior.info.method
    if fault == "a point":
        return f"draws of {library}'s NUTS as the reference"
    if not is_sampler(posterior):
        by_chains = f"draws of {library}'s NUTS{' as the reference' if fault == 'an approximation' else ''}"
        return f"{by_chains}, or, for the same model in Pyro, {UNTIL_GOOD}"
    if fault == "too few effective draws":
        return _enough_draws(posterior, quantities)
    if fault == "diverged":
        return f"a larger target acceptance in {library}, such as 0.95, or a non-centred form of the model"
    return f"{draws_call(posterior, 2 * _length(posterior))}, after twice the warm-up"


def _better(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return what is most often right where a posterior is not; for samplers, longer chains."""
    if is_sampler(posterior):
        return _longer(posterior, quantities)
    if _is_discrete(posterior):
        return RICHER_GUIDE
    if posterior.info.learned:
        return f"{MOVED}, or {RICHER_GUIDE}"
    return f"{MOVED}, or {FROM_ITS_DRAWS}" if _is_fixed_normal(posterior) else _after_chains(posterior)


def _after_chains(posterior: Posterior) -> str:
    """Return what to call where moved draws are no help."""
    info = posterior.info
    if info.learned:
        return RICHER_GUIDE
    if _is_fixed_normal(posterior) or info.method in ("check", "fit"):
        return FROM_ITS_DRAWS
    return f"{BY_DADVI}{' without a guide' if info.method == 'dadvi' else ''}, or {UNTIL_GOOD}"


def _longer(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return the same method for longer; where that is for steps, after what needs none."""
    info = posterior.info
    if is_sampler(posterior):
        return call(
            posterior, num_warmup=_rounded(2 * getattr(info, "num_warmup", 500)), num_draws=2 * _length(posterior)
        )
    if info.method not in STEPWISE or info.engine == "Newton":
        return _better(posterior, quantities)
    curve = getattr(info, "losses", getattr(info, "objective", ()))
    steps = call(posterior, num_steps=_rounded(MORE_STEPS * len(curve)))
    alone = info.method != "svi" or info.is_point or info.learned or _is_discrete(posterior)
    return steps if alone else f"{BY_DADVI}, or {steps}"


def _smaller_steps(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return smaller steps of a Hamiltonian sampler."""
    accepted = getattr(posterior.info, "accept_rate", None)
    if accepted is not None and float(accepted.mean()) > SMALL_STEPS:
        return "nuts of a non-centred form of the model, or of one with narrower priors"
    return f"{call(posterior, target_accept=0.95)}, or a non-centred form of the model"


def _enough_draws(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return as many draws as make twice the effective ones that are needed."""
    return more_draws(posterior, max(2.0, 2 * MIN_ESS / max(1.0, float(np.min(quantities["ess"])))))


def _finite(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return another method than one whose draws are not finite."""
    return BY_NUTS if is_sampler(posterior) or _is_fixed_normal(posterior) else _after_chains(posterior)


def _another_reference(posterior: Posterior, quantities: pd.DataFrame) -> str:
    return "gibbs(steps, …) as the reference" if _is_discrete(posterior) else f"{BY_NUTS} as the reference"


def _no_reference(posterior: Posterior, quantities: pd.DataFrame) -> str:
    """Return what judges an approximation: NUTS would hold parameters that it has learned elsewhere."""
    if _is_discrete(posterior):
        return _another_reference(posterior, quantities)
    another = "" if posterior.info.learned else f", or {_another_reference(posterior, quantities)}"
    return f"check(posterior, model, …), which needs no reference{another}"


FAULTS: dict[str, Callable[[Posterior, pd.DataFrame], str]] = {
    "too narrow": _better,
    "too wide": _better,
    "off centre": _better,
    "only usable": _better,
    "not finite": _finite,
    "not converged": _longer,
    "chains disagree": _longer,
    "too few effective draws": _enough_draws,
    "diverged": _smaller_steps,
    "a point": _another_reference,
    "an approximation": _no_reference,
}


def _method(posterior: Posterior) -> str:
    """Return the method that made the draws; of what `fit` has chosen, that which it names."""
    chosen = getattr(posterior.info, "chosen", posterior.info.method)
    return chosen.partition(",")[0].partition(":")[0]


def _is_fixed_normal(posterior: Posterior) -> bool:
    """Return whether draws are of the normal of `dadvi`, which no other fast method is expected to better."""
    return posterior.info.method == "dadvi" and posterior.info.guide is None


def _is_discrete(posterior: Posterior) -> bool:
    """Return whether there are but whole numbers among the draws, which methods that need gradients cannot make."""
    return all(bool((value == value.round()).all()) for value in posterior.draws.values())


def _length(posterior: Posterior) -> int:
    return next(iter(posterior.draws.values())).shape[1]


def _rounded(count: float) -> int:
    """Round up to two significant digits."""
    unit = 10 ** max(0, len(str(int(count))) - 2)
    return int(-(-count // unit) * unit)
