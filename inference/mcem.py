"""Monte Carlo EM: latent variables drawn by a Markov chain, parameters moved uphill at each draw.

Fisher's identity makes the gradient of log p(x, z) at a draw from p(z | x) an unbiased gradient of log p(x), so that
steps of falling size lead to a stationary point of the likelihood.

Wei and Tanner (1990), A Monte Carlo implementation of the EM algorithm, JASA 85; Gu and Kong (1998), A stochastic
approximation algorithm with Markov chain Monte-Carlo method for incomplete data estimation problems, PNAS 95: one
chain, one gradient step per iteration.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from itertools import repeat
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from .checkpoints import Place, states_of
from .info import McemInfo
from .mcmc.kernels import KERNELS, Kernel
from .mcmc.latent_vector import LatentVector, latent_vector
from .optim.drift import SHORTEST
from .optim.plan import Plan
from .optim.rules import as_optim
from .options import at_least_one, options_by_name, positive, to_device
from .posterior import Posterior
from .progress import Progress
from .svi import fit_eagerly
from .traces.draws import MAX_LOCAL
from .traces.isolate import isolated
from .traces.moments import moments_at
from .traces.params import constrained_params, statement_params, unconstrained_params


@options_by_name
def mcem(
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_steps: int = 2000,
    kernel: str | Kernel = "hmc",
    num_transitions: int = 1,
    lr: float = 0.02,
    optim: Callable[..., torch.optim.Optimizer] | Mapping[str, Any] | None = None,
    num_draws: int = 100,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
    checkpoint: Place = None,
    every: float = 30.0,
) -> Posterior[McemInfo]:
    """Maximise a model's marginal likelihood in its parameters, the E-step by Markov chain Monte Carlo.

    Parameters
    ----------
    model : callable
        A Pyro model with continuous latent sites and parameters (``pyro.param``, or a module's). If all its sites lie
        in a plate over the rows, each row has its own chain.
    *data
        Arguments of the model.
    model_kwargs : mapping, optional
        Further arguments of the model by name: data or options.
    num_steps : int
        Number of E-steps, each followed by a gradient step on the parameters.
    kernel : {"hmc", "nuts", "metropolis", "gibbs"} or callable
        Transition of the chain; see `guidebook.inference.mcmc.kernels`.
    num_transitions : int
        Transitions per E-step.
    lr, optim
        As in `svi`: the step size decays, and the answer is an average of the last iterates.
    num_draws : int
        Draws of the latent sites at the final parameters; none are kept if they have more than ten million entries.
    seed, device, progress, checkpoint, every
        As in `svi`. A kernel of your own is taken up as it was only if it has methods ``state`` and ``restore``, or
        adapts nothing.

    Returns
    -------
    Posterior
        The model's parameters are in ``params``, and among the draws as points. ``info`` is a `McemInfo`.

    Raises
    ------
    ValueError
        If an option is out of range, a latent site is discrete, a plate subsamples its rows, or the model has no
        parameters.
    FloatingPointError
        If the log joint density is no longer finite.

    Warns
    -----
    UserWarning
        If parameters were still drifting at the last steps.
    """
    at_least_one("mcem", num_steps=num_steps, num_transitions=num_transitions, num_draws=num_draws)
    positive("mcem", lr=lr)
    if isinstance(kernel, str) and kernel not in KERNELS:
        raise ValueError(f"mcem: unknown kernel {kernel!r}: there is {', '.join(KERNELS)}")
    optim = as_optim("mcem", optim)
    data = to_device("mcem", data, device)
    begin = time.perf_counter()
    with isolated(seed), pyro.validation_enabled(False):
        chain = _Chain(KERNELS[kernel]() if isinstance(kernel, str) else kernel, latent_vector("mcem", model, data))

        def loss_and_grads() -> Tensor:
            z = chain.move(num_transitions)
            loss = -chain.latents.log_density(z).sum()
            loss.backward()
            return loss.detach()

        try:
            params = unconstrained_params(model)
        except ValueError:
            raise ValueError("mcem: the model has no parameters to fit") from None
        with Progress("mcem", num_steps, progress) as bar:
            try:
                plan = Plan(lr, num_steps, moments_at(None, (), params, params), spacing=10 * SHORTEST)
                states = states_of(checkpoint)
                states.add(chain=chain, kernel=chain.transition if hasattr(chain.transition, "restore") else None)
                how = {"optim": optim or torch.optim.Adam, "lr": lr, "plan": plan, "bar": bar, "states": states}
                losses = fit_eagerly(loss_and_grads, params, repeat(()), **how)
            except FloatingPointError as error:
                raise FloatingPointError(f"mcem: {error}; try a smaller lr") from None
        draws = chain.draw(num_draws)
        with torch.no_grad():
            trace = poutine.trace(model).get_trace(*data)
    seconds = time.perf_counter() - begin

    converged, message = plan.result()
    if not converged:
        warnings.warn(f"mcem: {message}", stacklevel=3)
    late = chain.rates[len(chain.rates) // 2 :]
    info = McemInfo(
        kernel=kernel if isinstance(kernel, str) else getattr(kernel, "__name__", type(kernel).__name__),
        losses=losses,
        accept_rate=sum(late) / len(late),
        seconds=seconds,
        seed=seed,
        converged=converged,
        message=message,
    )
    length = num_draws if draws else 1
    points = {name: value.expand(1, length, *value.shape) for name, value in statement_params(trace).items()}
    return Posterior(draws=draws | points, params=constrained_params(trace), info=info)


class _Chain:
    """A Markov chain over a model's latent variables, whose parameters may change between transitions."""

    def __init__(self, transition: Kernel, latents: LatentVector) -> None:
        self.transition: Any = transition
        self.latents, self.at = latents, latents.start
        self.rates: list[float] = []  # of acceptance, per transition

    def state(self) -> dict[str, Any]:
        """Return where the chain stands."""
        return {"at": self.at, "rates": torch.tensor(self.rates, dtype=torch.float64)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back there."""
        self.at, self.rates = state["at"].to(self.at.device), state["rates"].tolist()

    def move(self, num_transitions: int) -> Tensor:
        for _ in range(num_transitions):
            at, rate = self.transition(self.at, self.latents.log_density, len(self.rates))
            self.at = at.detach()
            self.rates.append(rate)
        return self.at

    def draw(self, num_draws: int) -> dict[str, Tensor]:
        """Return draws by site, shape (1, num_draws, *site), one per transition; none if they are too large."""
        if self.at.numel() * num_draws > MAX_LOCAL:
            return {}
        draws = [self.latents.sites(self.move(1)) for _ in range(num_draws)]
        return {name: torch.stack([draw[name].detach().cpu() for draw in draws])[None] for name in draws[0]}
