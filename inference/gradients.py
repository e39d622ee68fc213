"""Single-sample estimates of the gradient of E_q f, by one estimator or another, to be compared.

The score-function estimate is f(z) ∇ log q(z); the reparameterised one differentiates f through z = g(noise, params).
Either stays unbiased when something of mean zero is taken off, a control variate, which the score ∇ log q(z) is.

References
----------
1. Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning,
   Machine Learning 8: the score function, and a baseline.
2. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR; Rezende, Mohamed and Wierstra (2014), Stochastic
   backpropagation and approximate inference in deep generative models, ICML: reparameterisation.
3. Ranganath, Gerrish and Blei (2014), Black box variational inference, AISTATS, section 3.2: the optimal coefficient.
4. Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!, ICLR workshop.
5. Mohamed, Rosca, Figurnov and Mnih (2020), Monte Carlo gradient estimation in machine learning, JMLR 21.
"""

import warnings
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.distributions import constraints, transform_to
from torch.utils import _pytree as pytree

from .traces.init import Start
from .traces.introspect import copied, is_family
from .traces.isolate import isolated

Params = dict[str, Tensor]
Estimator = Literal["score_function", "reparameterised"]
Baseline = Literal["mean", "optimal"]
CHUNK = 10_000  # draws differentiated at once


class GradientSummary(NamedTuple):
    """Moments of single-sample gradients; every entry keyed by parameter and shaped like it.

    Attributes
    ----------
    mean : dict of Tensor
        Estimate of the gradient, in nats by unit of the parameter.
    standard_error : dict of Tensor
        Of that mean.
    variance : dict of Tensor
        Of one draw.
    """

    mean: Params
    standard_error: Params
    variance: Params


def summarise(draws: Params) -> GradientSummary:
    """Mean, its standard error and the variance of draws, shape (draw, *param)."""
    return GradientSummary(
        {name: value.mean(0) for name, value in draws.items()},
        {name: value.std(0) / len(value) ** 0.5 for name, value in draws.items()},
        {name: value.var(0) for name, value in draws.items()},
    )


def gradient_draws(
    objective: Callable[[Tensor, Params], Tensor],
    family: Callable[[Params], Any],
    params: Params,
    *,
    estimator: Estimator = "reparameterised",
    baseline: Baseline | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Params:
    """Single-sample estimates of the gradient of E_q f(z, params) with respect to the parameters of q.

    Parameters
    ----------
    objective : callable
        ``(z, params) -> scalar``: f at one draw z. For an ELBO, log p(x, z) less the log density of ``family(params)``
        at z; the parameters within f are differentiated too.
    family : callable
        ``params -> distribution``, of torch's or Pyro's; all entries of its draw together are one z. It is fast to
        differentiate through its draws where it takes parameters with a dimension of draws in front.
    params : dict of Tensor
        Where the gradient is taken.
    estimator : {"score_function", "reparameterised"}
        The first needs a log density of q, the second draws that can be differentiated through.
    baseline : {"mean", "optimal"}, optional
        What is taken off. "mean": the score times the average f of the other draws; for the score function alone.
        "optimal": the score times the coefficient that lessens each entry's variance most, its slope on the score
        among draws of the other half.
    num_draws : int
    seed : int

    Returns
    -------
    dict of Tensor
        Shape (draw, *param). Draws have the gradient as their mean, and next to no correlation.

    Raises
    ------
    ValueError
        If an option is out of range, or the draws of q cannot be differentiated through where they must be.
    """
    _check(estimator, baseline, num_draws)
    params = {name: value.detach() for name, value in params.items()}
    with isolated(seed):
        q = family(params)
        if estimator == "reparameterised" and not q.has_rsample:
            raise ValueError(
                f"gradient_draws: draws of {type(q).__name__} cannot be differentiated through: take score_function"
            )
        with torch.no_grad():
            value = objective(q.sample(), params)
        if value.dim():
            raise ValueError(f"gradient_draws: objective must return a scalar for one draw, got {tuple(value.shape)}")
        with pyro.validation_enabled(False):
            if estimator == "score_function":
                return _score_function(objective, family, params, baseline, num_draws)
            return _reparameterised(objective, family, params, baseline, num_draws)


def elbo_gradients(
    model: Callable,
    guide: Callable,
    *data: Any,
    loss: Any = None,
    params: Params | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Params:
    """Gradients of the ELBO as one of Pyro's losses estimates them, again and again from the same parameters.

    Parameters
    ----------
    model : callable
        Any Pyro model.
    guide : callable
        A guide of it, which is copied and never changed, or a guide family, ``model -> guide``.
    *data
        Arguments of model and guide.
    loss : pyro.infer.ELBO or callable, optional
        ``Trace_ELBO()`` where left out; any of Pyro's, or a function ``(model, guide, *data) -> Tensor``. One that
        keeps a running baseline begins without one; its draws are unbiased and uncorrelated from the first.
    params : dict of Tensor, optional
        Values of parameters by name, constrained, such as a `Posterior`'s ``params``; where the guide starts for
        those left out.
    num_draws : int
    seed : int

    Returns
    -------
    dict of Tensor
        By parameter, shape (draw, *param): gradients of the ELBO, the loss with its sign turned, with respect to the
        parameter's **unconstrained** value.

    Raises
    ------
    ValueError
        If ``num_draws`` is not positive, there is no parameter, or ``params`` names one that does not exist.
    """
    if num_draws < 1:
        raise ValueError(f"elbo_gradients: num_draws must be at least 1, got {num_draws}")
    loss = loss or Trace_ELBO()
    with isolated(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Encountered (NaN|inf)")  # they are returned
        fitted = guide(Start()(model)) if is_family(guide) else copied(guide)
        free = _free_params(model, fitted, data)
        _set_params(free, params or {})
        rows: list[Params] = []
        with pyro.validation_enabled(False):
            for _ in range(num_draws):
                for value in free.values():
                    value.grad = None
                if hasattr(loss, "loss_and_grads"):
                    loss.loss_and_grads(model, fitted, *data)
                else:
                    loss(model, fitted, *data).backward()
                rows.append(
                    {n: torch.zeros_like(v) if v.grad is None else -v.grad.detach().clone() for n, v in free.items()}
                )
    return {name: torch.stack([row[name] for row in rows]) for name in free}


def _check(estimator: str, baseline: str | None, num_draws: int) -> None:
    if estimator not in get_args(Estimator):
        known = ", ".join(get_args(Estimator))
        raise ValueError(f"gradient_draws: estimator must be one of {known}, got {estimator!r}")
    if baseline is not None and baseline not in get_args(Baseline):
        known = ", ".join(get_args(Baseline))
        raise ValueError(f"gradient_draws: baseline must be None or one of {known}, got {baseline!r}")
    if baseline == "mean" and estimator == "reparameterised":
        raise ValueError("gradient_draws: baseline='mean' centres f, which the reparameterised gradient does not hold")
    fewest = {None: 1, "mean": 2, "optimal": 4}[baseline]
    if num_draws < fewest:
        raise ValueError(f"gradient_draws: num_draws must be at least {fewest} here, got {num_draws}")


def _score_function(
    objective: Callable, family: Callable, params: Params, baseline: str | None, num_draws: int
) -> Params:
    z = family(params).sample((num_draws,))

    def one(draw: Tensor) -> tuple[Tensor, Params, Params]:
        direct, value = torch.func.grad_and_value(lambda p: objective(draw, p))(params)
        return value, direct, _score(family, params, draw)

    value, direct, score = _each(one, z)
    if baseline == "mean":
        value = value - (value.sum() - value) / (num_draws - 1)
    draws = {name: score[name] * _beside(value, score[name]) + direct[name] for name in params}
    return _take_off(draws, score) if baseline == "optimal" else draws


def _reparameterised(
    objective: Callable, family: Callable, params: Params, baseline: str | None, num_draws: int
) -> Params:
    parts = [
        _pathwise(objective, family, params, min(CHUNK, num_draws - start)) for start in range(0, num_draws, CHUNK)
    ]
    draws = {name: torch.cat([part[name] for part, _ in parts]) for name in params}
    if baseline is None:
        return draws
    return _take_off(draws, _each(lambda z: _score(family, params, z), torch.cat([z for _, z in parts])))


def _pathwise(objective: Callable, family: Callable, params: Params, num_draws: int) -> tuple[Params, Tensor]:
    """Gradients through draws, and the draws: all from copies of the parameters, if the family keeps those apart."""
    leaves = {name: value.expand(num_draws, *value.shape).clone().requires_grad_() for name, value in params.items()}
    try:
        q = family(leaves)
        z = q.rsample()
        value = torch.vmap(objective, randomness="different")(z, leaves)
        last = _differentiate(value[-1], leaves)
        own = all(not gradient[:-1].any() for gradient in last.values())
        single = family(params)
        same = z.shape[1:] == single.batch_shape + single.event_shape and torch.allclose(
            q.log_prob(z)[-1].sum(), single.log_prob(z[-1]).sum(), rtol=1e-4, atol=1e-4
        )
        if own and same:
            return _differentiate(value.sum(), leaves), z.detach()
    except (RuntimeError, ValueError, TypeError, NotImplementedError, IndexError):
        pass
    rows = []
    for _ in range(num_draws):
        leaves = {name: value.clone().requires_grad_() for name, value in params.items()}
        z = family(leaves).rsample()
        rows.append((_differentiate(objective(z, leaves), leaves), z.detach()))
    return pytree.tree_map(lambda *values: torch.stack(values), *rows)


def _differentiate(value: Tensor, leaves: Params) -> Params:
    gradients = torch.autograd.grad(
        value, list(leaves.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return dict(zip(leaves, gradients, strict=True))


def _score(family: Callable, params: Params, z: Tensor) -> Params:
    """∇ log q(z) at one fixed z."""
    return torch.func.grad(lambda p: family(p).log_prob(z).sum())(params)


def _take_off(draws: Params, score: Params) -> Params:
    """Less the score times its best coefficient, entry by entry; each half of the draws has that of the other half."""
    half = len(next(iter(draws.values()))) // 2

    def slope(gradient: Tensor, of: Tensor) -> Tensor:
        centred = of - of.mean(0)
        spread = centred.square().sum(0)
        return torch.where(spread > 0, (gradient * centred).sum(0) / spread, 0.0)

    def less(gradient: Tensor, of: Tensor) -> Tensor:
        first, second = slope(gradient[:half], of[:half]), slope(gradient[half:], of[half:])
        return torch.cat([gradient[:half] - second * of[:half], gradient[half:] - first * of[half:]])

    return {name: less(gradient, score[name]) for name, gradient in draws.items()}


def _each(one: Callable, over: Tensor) -> Any:
    """Apply ``one`` to every row: many at a time, or row by row where it cannot be mapped."""
    try:
        return torch.vmap(one, chunk_size=CHUNK)(over)
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        rows = [one(row) for row in over]
        return pytree.tree_map(lambda *values: torch.stack(values), *rows)


def _beside(value: Tensor, like: Tensor) -> Tensor:
    """(draw,) with the dimensions of (draw, *param)."""
    return value.reshape(-1, *[1] * (like.dim() - 1))


def _free_params(model: Callable, guide: Callable, data: tuple) -> Params:
    """Unconstrained leaves by name: those in Pyro's (scoped) store that the two use, then others of their modules."""
    guide_trace = poutine.trace(guide).get_trace(*data)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*data)
    used = {name for trace in (guide_trace, model_trace) for name in trace.param_nodes}
    store = dict(pyro.get_param_store().named_parameters())
    free = {name: value for name, value in store.items() if name in used and value.requires_grad}
    known = {id(value) for value in free.values()}
    for function in (guide, model):
        if isinstance(function, torch.nn.Module):
            free |= {n: p for n, p in function.named_parameters() if p.requires_grad and id(p) not in known}
    if not free:
        raise ValueError("elbo_gradients: the guide and the model have no parameters")
    return free


def _set_params(free: Params, params: Params) -> None:
    limits = pyro.get_param_store().get_state()["constraints"]
    for name, value in params.items():
        if name not in free:
            raise ValueError(f"elbo_gradients: there is no parameter {name!r}; there is {', '.join(free)}")
        with torch.no_grad():
            free[name].copy_(transform_to(limits.get(name, constraints.real)).inv(value))
