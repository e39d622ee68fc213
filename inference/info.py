"""What each inference method reports about its own run: one record per method, all with the fields of `Info`."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Info:
    """Record of a run: what every method reports, and the diagnostics that several share.

    Attributes
    ----------
    method : str
        Name of the method.
    engine : str
        What ran it, such as "eager" or "compiled".
    seed : int
    seconds : float
        Wall time of the fit alone, compilation included.
    converged : bool
    message : str
        Why the method stopped and, if that is cause for concern, what to do.
    is_point : bool
        Whether the result is a point estimate, without a spread.
    guide : str or None
        Name of the guide or guide family, of methods that take one.
    elbo : float or None
        Evidence lower bound in nats, of methods that have one.
    k_hat : float or None
        Pareto shape of the importance weights: below .5 good, up to .7 usable (Vehtari et al. 2024). None for points,
        samplers, and models with latent variables that the guide leaves out.
    log_likelihood : float or None
        Of the data at the estimate, in nats.
    r_hat : dict of Tensor, or None
        Of samplers: rank-normalised split R̂ of every entry of every site (Vehtari et al. 2021), sites with more than
        5,000 entries left out. Of raw sites: a mixture's mean nothing before its components are matched.
    ess : dict of Tensor, or None
        Bulk effective sample size, likewise.
    divergences : Tensor, shape (chain,), or None
        Divergent transitions after warm-up, of Hamiltonian samplers.
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
    """Run of stochastic variational inference.

    Attributes
    ----------
    loss : str
        Name of the loss.
    losses : Tensor, shape (step,)
        Loss at each step, in nats; the negative ELBO under the default loss.
    elbo_se : float or None
        Standard error of ``elbo``, from ``log_weights``.
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
    """Run of Hamiltonian Monte Carlo.

    Attributes
    ----------
    accept_rate : Tensor, shape (chain,)
        Share of the iterations after warm-up that moved.
    step_size : Tensor, shape (chain,)
        Step size that warm-up ended with.
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
    """Run of the No-U-Turn sampler.

    Attributes
    ----------
    accept_rate, step_size, num_warmup
        As in `HmcInfo`.
    energy : Tensor, shape (chain, draw), or None
        Potential and kinetic energy at the end of each trajectory, in nats; None from Pyro, which does not say.
    tree_depth : Tensor, shape (chain, draw), or None
        How often each trajectory was doubled, 10 at most; likewise.
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
    """Run of random-walk Metropolis.

    Attributes
    ----------
    accept_rate : Tensor, shape (chain,)
        Share of the proposals after warm-up that were accepted.
    step_size : Tensor, shape (chain,)
        Factor on the root of the proposal's covariance.
    num_warmup : int
        Iterations of adaptation per chain, before the first draw.
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
    """Run of a Gibbs sampler.

    Attributes
    ----------
    num_warmup : int
        Sweeps per chain before the first draw.
    """

    method: str = "gibbs"
    num_warmup: int


@dataclass(frozen=True, kw_only=True)
class EmInfo(Info):
    """Run of expectation maximisation.

    Attributes
    ----------
    objective : Tensor, shape (iteration,)
        The objective after each iteration of the best restart, in nats; ``log_likelihood`` is its last value.
    optima : list of dict
        Where the restarts ended, best first: ``objective`` in nats; ``restarts``, how many ended there; ``degenerate``,
        None or why it does not count as an optimum.
    """

    method: str = "em"
    is_point: bool = True
    objective: Tensor
    optima: list[dict]


@dataclass(frozen=True, kw_only=True)
class CaviInfo(Info):
    """Run of coordinate ascent variational inference.

    Attributes
    ----------
    objective : Tensor, shape (sweep,)
        The bound after each sweep of the best restart, in nats; ``elbo`` is its last value, without Monte Carlo error.
    optima : list of dict
        Where the restarts ended, as in `EmInfo`.
    """

    method: str = "cavi"
    objective: Tensor
    optima: list[dict]


@dataclass(frozen=True, kw_only=True)
class McemInfo(Info):
    """Run of Monte Carlo EM.

    Attributes
    ----------
    kernel : str
        How the E-step's chain moved.
    losses : Tensor, shape (step,)
        Minus log p(x, z) at each E-step's draw, in nats: not a likelihood, and no bound on one.
    accept_rate : float
        Mean acceptance over the second half of the transitions.
    """

    method: str = "mcem"
    is_point: bool = True
    kernel: str
    losses: Tensor
    accept_rate: float


@dataclass(frozen=True, kw_only=True)
class ClosedFormInfo(Info):
    """Run of a solution in closed form."""

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
