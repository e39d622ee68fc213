"""Variational inference with fixed draws: no step size and no number of steps, and covariances by linear response.

References
----------
1. Giordano, Ingram and Broderick (2024), Black box variational inference with a deterministic objective: faster, more
   accurate, and even more black box, JMLR 25.
2. Giordano, Broderick and Jordan (2018), Covariances, robustness, and variational Bayes, JMLR 19.
3. Burroni, Domke and Sheldon (2024), Sample average approximation for black-box variational inference, UAI.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .checkpoints import Checkpoint, Place, states_of
from .diagnostics import k_hat
from .engines.batched import Batched
from .info import DadviInfo
from .optim.balanced import BalancedDraws, balanced_normals
from .optim.coordinates import Coordinates
from .optim.guide_rounds import fit_guide
from .optim.losses import loss_for
from .optim.many_starts import fit_best, fit_each
from .optim.mode import MAX_DENSE
from .optim.unit_scale import into_unit_scale
from .options import at_least_one, options_by_name
from .posterior import Posterior
from .progress import Progress
from .traces.draws import draw_guide
from .traces.dtypes import draws_dtype
from .traces.guides import check_guide, check_reparameterised, clone_guide, display_name, family_guide, is_family
from .traces.held import prepare_held
from .traces.isolate import isolated
from .traces.params import constrained_params, statement_params, trace_pair, unconstrained_params
from .traces.prepare import prepare
from .traces.target import VectorTarget
from .traces.validation import unvalidated
from .traces.vectors import Sites

RETURNED_DRAWS = 4000
MAX_LOSS, MAX_LOSS_PER_DIM = 0.5, 0.02  # nats of the ELBO that linear response may cost


@options_by_name
def dadvi(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    guide: Callable | None = None,
    num_draws: int | None = None,
    linear_response: bool = True,
    num_restarts: int = 1,
    params: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[DadviInfo]:
    """Fit a normal, or another guide, to a model's posterior by the ELBO at fixed draws.

    With the draws of the ELBO fixed, it is an ordinary function of the guide's parameters, which L-BFGS maximises
    without a step size (references 1 and 3). The normal has any covariance and lives on the unconstrained scale, in
    coordinates in which the posterior has about unit scale: those of the curvature at the mode, then of the fit itself.
    So the units of data and parameters change nothing. Its covariance is then replaced by the linear response, by which
    the optimum would move if the posterior were tilted: that corrects much of what the best normal gets wrong
    (reference 2).

    Parameters
    ----------
    model : callable
        Any Pyro model; discrete latent sites are summed out.
    *data
        Arguments of the model; bind others with `functools.partial`.
    model_kwargs : mapping, optional
        Further arguments of the model and the guide, by name: data or options.
    guide : callable, optional
        A reparameterised guide with the model's signature, or a guide family, ``model -> guide``, to fit in the same
        way, without linear response. Default: a normal.
    num_draws : int, optional
        Fixed draws of the objective; with fewer than 2 d + 2, in d dimensions, the normal is independent in whitened
        coordinates. Default: 64 or more, doubled until means and sds move by less than 3 % of an sd.
    linear_response : bool
        Whether draws come from the normal with the covariance by linear response, or from the optimum itself.
    num_restarts : int
        Starts; the fit with the greatest ELBO is kept. All starts lead to their modes, and to independent normals, in
        batches; the five best of the different optima are then fitted as a single one is. With more than 200 latent
        numbers one start after another is fitted.
    params : dict of Tensor, optional
        Values, constrained, of the model's ``pyro.param`` statements: they are held there. Default: their initial
        values, with a warning; with ``guide`` they are learnt.
    seed : int
        Same seed, same machine, same numbers.
    device : str or torch.device, optional
        Where the model runs, such as "cuda". Default: where the data are. Draws come back to the CPU.
    progress : bool
        Whether to show a bar.
    checkpoint, every
        As in `svi`, but that a fit, or a batch of up to 256 starts, is kept when it has ended, and begins anew if it
        was stopped before.

    Returns
    -------
    Posterior
        With 4,000 draws, balanced as the fixed ones are, so that their means and sds are those of the normal. ``info``
        is a `DadviInfo`; its ELBO and k̂ are of the distribution that the draws come from.

    Raises
    ------
    ValueError
        If an option is out of range, or the guide cannot be fitted so.

    Warns
    -----
    UserWarning
        If the optimum was not reached, the draws ran out before the answer stood still, or there is no linear response.
    """
    at_least_one("dadvi", num_draws=num_draws, num_restarts=num_restarts)
    begin, dtype = time.perf_counter(), draws_dtype(data)
    if guide is None:
        prepared = prepare_held("dadvi", model, data, device, params, least_dtype=torch.float64)
        with isolated(seed, prepared.dtype), Progress("dadvi", num_restarts, progress) as bar:
            fit = _fit_normal(
                VectorTarget("dadvi", prepared),
                num_draws,
                linear_response,
                num_restarts,
                seed,
                dtype,
                bar,
                states_of(checkpoint),
            )
    else:
        if num_restarts != 1:
            raise ValueError("dadvi: num_restarts belongs to the normal, which is fitted if there is no guide")
        fit = _fit_guide(model, guide, data, num_draws, params, seed, device)
    bound, problem = _bound(fit.log_weights)
    converged, message = fit.converged and not problem, "; ".join(filter(None, [fit.message, problem]))
    if not converged:
        warnings.warn(f"dadvi: {message}", stacklevel=3)
    info = DadviInfo(
        seed=seed,
        seconds=time.perf_counter() - begin,
        converged=converged,
        message=message,
        guide=None if guide is None else display_name(guide),
        log_weights=fit.log_weights,
        **bound,
        **fit.fields,
    )
    return Posterior(draws=fit.draws, params=fit.params, info=info)


class _Fit(NamedTuple):
    """A fitted distribution, by its draws."""

    draws: Sites  # (1, draw, *site), on the CPU
    params: Sites
    log_weights: Tensor | None  # (draw), nats, on the CPU; None if the guide lacks latent sites
    converged: bool
    message: str
    fields: dict[str, Any]  # of `DadviInfo`, those of this kind of fit


def _fit_normal(
    target: VectorTarget,
    num_draws: int | None,
    linear_response: bool,
    num_restarts: int,
    seed: int,
    dtype: torch.dtype,
    bar: Progress,
    states: Checkpoint,
) -> _Fit:
    batched = target.batched
    starts = torch.stack([batched.start, *(target.new_start() for _ in range(num_restarts - 1))])
    how: dict[str, Any] = {"response": linear_response, "seed": seed, "once": partial(_once, states, batched)}
    fit_all = fit_best if num_restarts > 1 and batched.dim <= MAX_DENSE else fit_each
    fits, optima = fit_all(batched, starts, num_draws, **how)
    bar.update(num_restarts, f"ELBO {-min(fit.loss for fit in fits):.2f}")
    best = min(fits, key=lambda fit: fit.loss)
    z = balanced_normals(RETURNED_DRAWS, batched.dim, seed).to(batched.start)
    normal, notes = best.response or best.normal, [best.message, *target.prepared.notes]
    weights = _log_weights(batched, z, normal)
    if best.response and not float(weights.mean()) >= -best.loss - MAX_LOSS - MAX_LOSS_PER_DIM * batched.dim:
        notes.append("linear response leads out of the posterior, which is far from normal: sds are the optimum's own")
        normal = best.normal
        weights = _log_weights(batched, z, normal)
    fields = {
        "num_draws": best.num_draws,
        "linear_response": normal is best.response,
        "rounds": best.history,
        "optima": optima,
        "gradients": batched.gradients,
        "per_row": target.prepared.per_row,
    }
    draws = target.draws(normal.points(z)[None], dtype)
    return _Fit(draws, target.prepared.params, weights, best.converged, "; ".join(notes), fields)


def _once(states: Checkpoint, batched: Batched, name: str, make: Callable[[], tuple]) -> tuple:
    """Return what ``make`` does, or what it did in a run that was stopped later."""
    kept = states.part(name)
    if (ended := kept.result) is not None:
        batched.gradients, batched.is_recorded = ended["gradients"], ended["is_recorded"]
        return ended["fit"]
    fit = make()
    kept.finish({"fit": fit, "gradients": batched.gradients, "is_recorded": batched.is_recorded})
    return fit


def _fit_guide(
    model: Callable,
    guide: Callable,
    data: tuple,
    num_draws: int | None,
    params: Mapping[str, Tensor] | None,
    seed: int,
    device: str | torch.device | None,
) -> _Fit:
    check_guide(guide, model, "dadvi")
    by_hand = None if is_family(guide) else clone_guide(guide)
    if device is not None and isinstance(by_hand, torch.nn.Module):
        by_hand = by_hand.to(device)
    shown = by_hand and clone_guide(by_hand)
    prepared = prepare("dadvi", model, data, device=device, params=params, guide=shown)
    joint = prepared.log_joint()
    with isolated(seed, prepared.dtype), unvalidated():
        fitted = family_guide(guide, prepared.model, joint) if by_hand is None else by_hand
        if device is not None and isinstance(fitted, torch.nn.Module):
            fitted = fitted.to(device)
        loss, trained = loss_for(None, 1, joint, prepared.model, fitted)
        guide_trace, _ = trace_pair(trained, fitted, joint.data)  # creates the parameters
        check_reparameterised("dadvi", display_name(guide), guide_trace)
        unit_scale = into_unit_scale(fitted, joint, True, seed) if by_hand is None else None
        rounds = fit_guide(loss, trained, fitted, unconstrained_params(model, fitted), joint, num_draws, seed)
        if unit_scale is not None:
            unit_scale.fold()
        with torch.no_grad():
            guide_trace, model_trace = trace_pair(prepared.model, fitted, joint.data)
        with BalancedDraws():
            drawn = draw_guide(joint, fitted, RETURNED_DRAWS, None)
    weights = None if drawn.log_weights is None else drawn.log_weights.cpu().double()
    draws = {name: value.cpu()[None] for name, value in drawn.sites.items()}
    held = {n: v.expand(1, RETURNED_DRAWS, *v.shape) for n, v in statement_params(model_trace).items()}
    fields = {
        "num_draws": rounds.num_draws,
        "linear_response": False,
        "rounds": rounds.history,
        "optima": [],
        "learned": sorted(constrained_params(model_trace)),
        "gradients": rounds.gradients,
        "per_row": prepared.per_row,
    }
    message = "; ".join([rounds.message, *prepared.notes])
    found = constrained_params(model_trace, guide_trace)
    return _Fit(draws | held, found, weights, rounds.converged, message, fields)


def _bound(weights: Tensor | None) -> tuple[dict[str, float | None], str]:
    """Return the ELBO, its error and k̂ of log weights, None where there is none, and a clause that says why not."""
    if weights is None:
        return {"elbo": None, "elbo_se": None, "k_hat": None}, ""
    finite = weights[torch.isfinite(weights)]
    if missing := len(weights) - len(finite):
        words = f"the density is zero at {missing} of {len(weights)} draws, so that there is no ELBO"
        return {"elbo": None, "elbo_se": None, "k_hat": k_hat(finite)}, words
    error = float(weights.std() / math.sqrt(len(weights)))
    return {"elbo": float(weights.mean()), "elbo_se": error, "k_hat": k_hat(weights)}, ""


def _log_weights(batched: Batched, z: Tensor, normal: Coordinates) -> Tensor:
    """Return log p(x, z) - log q(z), (n), at points of a normal, z (n, d) in its coordinates; on the CPU."""
    energies, _ = batched(normal.points(z))
    log_q = -z.square().sum(1) / 2 - z.shape[1] / 2 * math.log(2 * math.pi) - normal.log_det
    return (-energies - log_q).cpu().double()
