"""Monte Carlo EM: latent variables drawn by a Markov chain, parameters moved uphill at each draw.

Fisher's identity makes the gradient of log p(x, z) at a draw from p(z | x) an unbiased gradient of log p(x), so that
steps of falling size lead to a stationary point of the likelihood.

References
----------
1. Wei and Tanner (1990), A Monte Carlo implementation of the EM algorithm, JASA 85.
2. Gu and Kong (1998), A stochastic approximation algorithm with Markov chain Monte-Carlo method for incomplete data
   estimation problems, PNAS 95: one chain, one gradient step an iteration.
"""

import time
import warnings
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from .info import McemInfo
from .mcmc.kernels import KERNELS, Kernel
from .mcmc.latent_vector import Blocks
from .optim.result import remaining_decrease
from .posterior import Posterior
from .progress import Progress
from .svi import fit_eagerly
from .traces.draws import MAX_LOCAL, nodes
from .traces.isolate import isolated
from .traces.params import unconstrained_params


def mcem(
    model: Callable,
    *data: Any,
    num_steps: int = 2000,
    kernel: str | Kernel = "hmc",
    num_transitions: int = 1,
    lr: float = 0.02,
    optim: type[torch.optim.Optimizer] | None = None,
    num_draws: int = 100,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Posterior[McemInfo]:
    """Maximise a model's marginal likelihood in its parameters, the E-step by Markov chain Monte Carlo.

    Parameters
    ----------
    model : callable
        A Pyro model with continuous latent sites and parameters (``pyro.param``, or of a module). Where every latent
        site lies in a plate over the rows, each row has a chain of its own.
    *data
        Arguments of the model.
    num_steps : int
        E-steps, each followed by a gradient step on the parameters.
    kernel : {"hmc", "nuts", "metropolis", "gibbs"} or callable
        How the chain moves; see `guidebook.inference.mcmc.kernels`.
    num_transitions : int
        Transitions an E-step.
    lr : float
        Step size before it decays; the answer is an average of the last iterates (`guidebook.inference.optim.sgd`).
    optim : type, optional
        Class of optimiser; `torch.optim.Adam` where left out.
    num_draws : int
        Draws of the latent sites kept at the end, the parameters held at the answer; none if they come to more than
        ten million numbers.
    seed : int
    device : str or torch.device, optional
        Where to fit; the data's own device where left out.
    progress : bool

    Returns
    -------
    Posterior
        The model's parameters are in ``params``, and among the draws as points. ``info`` is a `McemInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, a latent site is discrete, or the model has no parameters.
    FloatingPointError
        If the log joint density stops being finite.

    Warns
    -----
    UserWarning
        If the log joint density was still rising when the steps ran out.
    """
    counts = {"num_steps": num_steps, "num_transitions": num_transitions, "num_draws": num_draws}
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"mcem: {name} must be at least 1, got {value}")
    if not lr > 0:
        raise ValueError(f"mcem: lr must be positive, got {lr}")
    if isinstance(kernel, str):
        if kernel not in KERNELS:
            raise ValueError(f"mcem: unknown kernel {kernel!r}: there is {', '.join(KERNELS)}")
        transition, called = KERNELS[kernel](), kernel
    else:
        transition, called = kernel, getattr(kernel, "__name__", type(kernel).__name__)
    if device is not None:
        data = tuple(value.to(device) if isinstance(value, Tensor) else value for value in data)
    begin = time.perf_counter()
    with isolated(seed), pyro.validation_enabled(False):
        blocks = Blocks(model, data)
        state, count, accepted = blocks.start, 0, []

        def move(times: int) -> None:
            nonlocal state, count
            for _ in range(times):
                state, rate = transition(state, blocks.log_density, count)
                state, count = state.detach(), count + 1
                accepted.append(rate)

        def loss_and_grads() -> float:
            move(num_transitions)
            loss = -blocks.log_density(state).sum()
            loss.backward()
            return float(loss.detach())

        try:
            params = unconstrained_params(model)
        except ValueError:
            raise ValueError("mcem: the model has no parameters to fit") from None
        with warnings.catch_warnings(), Progress("mcem", num_steps, progress) as bar:
            try:
                losses = fit_eagerly(
                    loss_and_grads,
                    params,
                    repeat(()),
                    optim=optim or torch.optim.Adam,
                    lr=lr,
                    num_steps=num_steps,
                    bar=bar,
                )
            except FloatingPointError as error:
                raise FloatingPointError(f"mcem: {error}; try a smaller lr") from None
        drawn = _draw(blocks, lambda: move(1) or state, num_draws)
        params_found = _params(model, data)
    seconds = time.perf_counter() - begin

    fall = remaining_decrease(losses[::10])  # the chain's draws resemble their neighbours
    because = f"took all {num_steps} steps"
    if fall > 0:
        because += f" with the log joint density still rising, by {fall:.3g} nats of late: take more steps"
        warnings.warn(f"mcem: {because}", stacklevel=2)
    info = McemInfo(
        kernel=called,
        losses=losses,
        accept_rate=sum(accepted[len(accepted) // 2 :]) / max(1, len(accepted) - len(accepted) // 2),
        seconds=seconds,
        seed=seed,
        converged=fall <= 0,
        message=because,
    )
    length = next(iter(drawn.values())).shape[1] if drawn else 1
    points = {n: v.expand(1, length, *v.shape) for n, v in params_found.items() if "$$$" not in n and "." not in n}
    return Posterior(draws=drawn | points, params=params_found, info=info)


def _draw(blocks: Blocks, step: Callable[[], Tensor], num_draws: int) -> dict[str, Tensor]:
    if blocks.start.numel() * num_draws > MAX_LOCAL:
        return {}
    kept = [{name: value.detach().cpu() for name, value in blocks.sites(step()).items()} for _ in range(num_draws)]
    return {name: torch.stack([sites[name] for sites in kept])[None] for name in kept[0]}


def _params(model: Callable, data: tuple) -> dict[str, Tensor]:
    with torch.no_grad():
        trace = poutine.trace(model).get_trace(*data)
    return {n: site["value"].detach().cpu().clone() for n, site in nodes(trace).items() if site["type"] == "param"}
