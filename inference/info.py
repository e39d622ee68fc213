"""Run records: one type per inference method, all with the fields of `Info`."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Info:
    """Record of a run: what every method reports, and diagnostics that several share.

    Attributes
    ----------
    method : str
        Name of the method.
    engine : str
        What ran the method, such as "eager" or "compiled".
    seed : int
    seconds : float
        Wall time of the fit alone, including compilation.
    converged : bool
    message : str
        Why the method stopped and, if that is cause for concern, what to do.
    is_point : bool
        Whether the result is a point estimate, without a spread.
    guide : str or None
        Name of the guide or guide family; None for methods without one.
    elbo : float or None
        Evidence lower bound in nats; None for methods without one.
    k_hat : float or None
        Pareto shape of the importance weights: below .5 good, up to .7 usable (Vehtari et al. 2024). None for points,
        samplers, and models with latent variables that the guide omits.
    log_likelihood : float or None
        Log likelihood of the data at the estimate, in nats.
    r_hat : dict of Tensor, or None
        Samplers: rank-normalised split R̂ of each entry of each site (Vehtari et al. 2021), without sites of more than
        5,000 entries. These are raw sites: a mixture's say nothing before its components are matched.
    ess : dict of Tensor, or None
        Samplers: bulk effective sample sizes, shaped as ``r_hat``.
    divergences : Tensor, shape (chain,), or None
        Hamiltonian samplers: number of divergent transitions after warm-up.
    """

    method: str
    engine: str = "eager"
    seed: int
    seconds: float
    converged: bool
    message: str
    is_point: bool = False
    guide: str | None = None
    elbo: float | None = None
    k_hat: float | None = None
    log_likelihood: float | None = None
    r_hat: dict[str, Tensor] | None = None
    ess: dict[str, Tensor] | None = None
    divergences: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class SviInfo(Info):
    """Record of stochastic variational inference.

    Attributes
    ----------
    loss : str
        Name of the loss.
    losses : Tensor, shape (step,)
        Loss at each step, in nats; the negative ELBO under the default loss.
    elbo_se : float or None
        Monte Carlo standard error of ``elbo``, in nats.
    log_weights : Tensor, shape (draw,), or None
        log p(x, z) - log q(z) at each draw of the guide, in nats.
    """

    method: str = "svi"
    loss: str = "Trace_ELBO"
    losses: Tensor
    elbo_se: float | None = None
    log_weights: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HmcInfo(Info):
    """Record of Hamiltonian Monte Carlo.

    Attributes
    ----------
    accept_rate : Tensor, shape (chain,)
        Mean acceptance probability after warm-up, which ``target_accept`` sets.
    step_size : Tensor, shape (chain,)
        Step size at the end of warm-up.
    num_warmup : int
        Warm-up iterations per chain, not among the draws.
    trajectory_length : float
        Mean length of a trajectory: step size times number of steps.
    """

    method: str = "hmc"
    engine: str = "pyro"
    accept_rate: Tensor
    step_size: Tensor
    num_warmup: int
    trajectory_length: float


@dataclass(frozen=True, kw_only=True)
class NutsInfo(Info):
    """Record of the No-U-Turn sampler.

    Attributes
    ----------
    accept_rate, step_size, num_warmup
        As in `HmcInfo`.
    energy : Tensor, shape (chain, draw), or None
        Sum of potential and kinetic energy at the end of each trajectory, in nats; None with Pyro's engine.
    tree_depth : Tensor, shape (chain, draw), or None
        Number of doublings of each trajectory, at most 10; None with Pyro's engine.
    """

    method: str = "nuts"
    engine: str = "pyro"
    accept_rate: Tensor
    step_size: Tensor
    num_warmup: int
    energy: Tensor | None = None
    tree_depth: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class MetropolisInfo(Info):
    """Record of random-walk Metropolis.

    Attributes
    ----------
    accept_rate : Tensor, shape (chain,)
        Fraction of proposals accepted after warm-up.
    step_size : Tensor, shape (chain,)
        Scale of the proposal, relative to the covariance learned.
    num_warmup : int
        Adaptation iterations per chain, before the first draw.
    thin : int
        Iterations per draw.
    """

    method: str = "metropolis"
    accept_rate: Tensor
    step_size: Tensor
    num_warmup: int
    thin: int


@dataclass(frozen=True, kw_only=True)
class GibbsInfo(Info):
    """Record of a Gibbs sampler.

    Attributes
    ----------
    num_warmup : int
        Sweeps per chain before the first draw.
    """

    method: str = "gibbs"
    num_warmup: int


@dataclass(frozen=True, kw_only=True)
class EmInfo(Info):
    """Record of expectation maximisation.

    Attributes
    ----------
    objective : Tensor, shape (iteration,)
        Objective after each iteration of the best restart, in nats; ``log_likelihood`` is its last value.
    optima : list of dict
        Optima that restarts reached, best first: ``objective`` in nats; ``restarts``, how many ended there;
        ``degenerate``, None or why it does not count.
    """

    method: str = "em"
    is_point: bool = True
    objective: Tensor
    optima: list[dict]


@dataclass(frozen=True, kw_only=True)
class CaviInfo(Info):
    """Record of coordinate ascent variational inference.

    Attributes
    ----------
    objective : Tensor, shape (sweep,)
        Bound after each sweep of the best restart, in nats; ``elbo`` is its last value, without Monte Carlo error.
    optima : list of dict
        As in `EmInfo`.
    """

    method: str = "cavi"
    objective: Tensor
    optima: list[dict]


@dataclass(frozen=True, kw_only=True)
class McemInfo(Info):
    """Record of Monte Carlo EM.

    Attributes
    ----------
    kernel : str
        MCMC kernel of the E-step.
    losses : Tensor, shape (step,)
        -log p(x, z) at each E-step's draw, in nats: neither a likelihood nor a bound on one.
    accept_rate : float
        Mean acceptance rate over the second half of the transitions.
    """

    method: str = "mcem"
    is_point: bool = True
    kernel: str
    losses: Tensor
    accept_rate: float


@dataclass(frozen=True, kw_only=True)
class ClosedFormInfo(Info):
    """Record of a solution in closed form."""

    method: str = "closed_form"
    is_point: bool = True
    converged: bool = True
    message: str = "solved without iteration"


INFO_TYPES: dict[str, type[Info]] = {
    "svi": SviInfo,
    "nuts": NutsInfo,
    "hmc": HmcInfo,
    "metropolis": MetropolisInfo,
    "em": EmInfo,
    "cavi": CaviInfo,
    "gibbs": GibbsInfo,
    "mcem": McemInfo,
    "closed_form": ClosedFormInfo,
}
