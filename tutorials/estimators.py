"""Estimators of the gradient of E_q f, one draw at a time: reparameterised, or by the score function.

The score-function estimate is f(z) ∇ log q(z); the reparameterised one differentiates f through z = g(noise, params).
Since E ∇ log q(z) = 0, the estimate (f(z) - b) ∇ log q(z) is unbiased for any baseline b independent of the draw.

References
----------
1. Williams (1992), Simple statistical gradient-following algorithms for connectionist reinforcement learning,
   Machine Learning 8: the score function, and a baseline.
2. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR; Rezende, Mohamed and Wierstra (2014), Stochastic
   backpropagation and approximate inference in deep generative models, ICML: reparameterisation.
3. Ranganath, Gerrish and Blei (2014), Black box variational inference, AISTATS, section 3.2: the best baseline.
4. Kool, van Hoof and Welling (2019), Buy 4 REINFORCE samples, get a baseline for free!, ICLR workshop.
5. Schulman, Heess, Weber and Abbeel (2015), Gradient estimation using stochastic computation graphs, NeurIPS.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.func import grad, grad_and_value

Params = dict[str, Tensor]


def gradient_draws(
    objective: Callable[[Tensor, Params], Tensor],
    family: Callable[[Params], Any],
    params: Params,
    *,
    estimator: str = "reparameterised",
    baseline: str | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> Params:
    """Return single-draw estimates of the gradient of E_q f(z, params), by parameter, shape (draw, *param).

    Parameters
    ----------
    objective : callable
        ``(z, params) -> scalar``: f at one draw z. For an ELBO, log p(x, z) less the log density of ``family(params)``
        at z; the parameters within f are differentiated too.
    family : callable
        ``params -> distribution``; its whole draw is one z. To be reparameterised it must broadcast over a leading
        dimension of its parameters.
    params : dict of Tensor
        Where the gradient is taken.
    estimator : {"reparameterised", "score_function"}
    baseline : {"mean", "optimal"}, optional
        For the score function. "mean": the average f of the other draws (reference 4). "optimal": for each entry the
        coefficient that minimises its variance, estimated from the other half of the draws (reference 3).
    num_draws : int
    seed : int
    """
    if (estimator, baseline) not in {
        ("reparameterised", None),
        *(("score_function", kind) for kind in (None, "mean", "optimal")),
    }:
        raise ValueError(f"gradient_draws: there is no estimator {estimator!r} with baseline {baseline!r}")

    def score_function(z: Tensor) -> tuple[Tensor, Params, Params]:
        direct, value = grad_and_value(lambda p: objective(z, p))(params)
        return value, direct, grad(lambda p: family(p).log_prob(z).sum())(params)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if estimator == "reparameterised":
            leaves = _copies(params, num_draws)
            family(_copies(params, num_draws + 1))  # fails where ``num_draws`` happens to fit a mixture of dimensions
            values = torch.vmap(objective)(family(leaves).rsample(), leaves)
            return dict(zip(leaves, torch.autograd.grad(values.sum(), list(leaves.values())), strict=True))
        value, direct, score = torch.vmap(score_function)(family(params).sample((num_draws,)))
    if baseline == "mean":
        value = value - (value.sum() - value) / (num_draws - 1)
    estimates = {n: score[n] * value.reshape(-1, *[1] * params[n].dim()) + direct[n] for n in params}
    if baseline == "optimal":
        estimates = {name: _less_best_multiple(estimates[name], score[name]) for name in params}
    return estimates


def _copies(params: Params, number: int) -> Params:
    return {name: p.detach().expand(number, *p.shape).clone().requires_grad_() for name, p in params.items()}


def _less_best_multiple(estimates: Tensor, score: Tensor) -> Tensor:
    """Subtract the score times its best coefficient; each half of the draws takes the other half's, to stay unbiased."""
    half = len(estimates) // 2
    halves = list(
        zip(estimates.split([half, len(estimates) - half]), score.split([half, len(score) - half]), strict=True)
    )
    slopes = [(e * (s - s.mean(0))).sum(0) / (s - s.mean(0)).square().sum(0) for e, s in halves]
    return torch.cat([e - slope * s for (e, s), slope in zip(halves, reversed(slopes), strict=True)])


def score_function(guide: Callable[..., Any], *, baseline: bool = True, decay: float = 0.9) -> Callable[..., Any]:
    """Wrap a guide so that its draws are not differentiated through, and each is scored instead.

    ``svi(model, score_function(guide), *data, loss="graph")`` then trains it with baselines (reference 5).

    Parameters
    ----------
    guide : callable
        A guide, not a guide family. Its point masses stay as they are.
    baseline : bool
        Whether every site asks for the running average of its cost as a baseline, unless it asks for another. Only
        ``TraceGraph_ELBO`` (loss "graph") uses it; other losses run without a baseline.
    decay : float
        Weight of the old average at each step, in [0, 1).
    """
    name = getattr(guide, "__name__", type(guide).__name__)

    def scored(*args: Any, **kwargs: Any) -> Any:
        with ScoreFunction(decay if baseline else None):
            return guide(*args, **kwargs)

    scored.__name__ = f"score_function({name})"
    return scored


class ScoreFunction(Messenger):
    """Replaces the distributions of latent sites by `Detached` ones, and asks for a baseline."""

    def __init__(self, decay: float | None) -> None:
        super().__init__()
        self.decay = decay

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        fn = msg["fn"]
        if msg["is_observed"] or not getattr(fn, "has_rsample", False) or _is_delta(fn):
            return
        msg["fn"] = Detached(fn)
        if self.decay is not None:
            average = {"use_decaying_avg_baseline": True, "baseline_beta": self.decay}
            msg["infer"] = {"baseline": average} | (msg["infer"] or {})


class Detached(TorchDistribution):
    """A distribution of the same density whose draws carry no gradient."""

    arg_constraints = {}  # noqa: RUF012 (torch's)
    has_rsample = False

    def __init__(self, base: Any) -> None:
        self.base = base
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """That of the distribution given."""
        return self.base.support

    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008 (as torch has it)
        """Draw. A copy: a transformed distribution would take its last draw's way back as fixed, and lose gradients."""
        with torch.no_grad():
            return self.base.sample(sample_shape).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log density, differentiable in the distribution's parameters."""
        return self.base.log_prob(value)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Detached":
        """Return the same, of a larger batch shape."""
        return Detached(self.base.expand(batch_shape))


def _is_delta(fn: Any) -> bool:
    while hasattr(fn, "base_dist"):
        fn = fn.base_dist
    return isinstance(fn, dist.Delta)
