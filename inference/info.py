"""What each inference method reports about its own run: one small record a method.

Every record has ``method``, ``engine``, ``seed``, ``seconds`` (the fit alone), ``converged`` and ``stopped_because``
(a sentence: why the method stopped and, where that is cause for concern, what to do).
"""

# ruff: noqa: D102 (the properties of `RunInfo` are said above)
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class RunInfo(Protocol):
    """What every record has: see above."""

    @property
    def method(self) -> str: ...
    @property
    def engine(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def seconds(self) -> float: ...
    @property
    def converged(self) -> bool: ...
    @property
    def stopped_because(self) -> str: ...
    @property
    def is_point(self) -> bool: ...
    def _asdict(self) -> dict[str, Any]: ...


class SviInfo(NamedTuple):
    """Run of stochastic variational inference.

    Attributes
    ----------
    guide : str
        Name of the guide or guide family.
    losses : Tensor, shape (step,)
        Loss at each step, in nats; the negative ELBO under the default loss.
    elbo, elbo_se : float or None
        Evidence lower bound in nats, and its standard error, from ``log_weights``; None for a point.
    k_hat : float or None
        Pareto shape of the importance weights: below .5 good, up to .7 usable (Vehtari et al. 2024). None for a
        point, and where the model has latent variables that the guide leaves out.
    log_weights : Tensor, shape (draw,), or None
        log p(x, z) - log q(z) at each draw of the guide, in nats.
    is_point : bool
        Whether the guide is a point, so that it has no spread and no bound.
    loss : str
        Name of the loss.
    """

    guide: str
    losses: Tensor
    elbo: float | None
    elbo_se: float | None
    k_hat: float | None
    log_weights: Tensor | None
    is_point: bool
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "eager"
    method: str = "svi"
    loss: str = "Trace_ELBO"


class NutsInfo(NamedTuple):
    """Run of the No-U-Turn sampler.

    Attributes
    ----------
    r_hat : dict of Tensor
        Rank-normalised split R̂ of every entry of every site (Vehtari et al. 2021), those with more than 5,000
        entries left out. Of raw sites: a mixture's mean nothing before its components are matched.
    ess : dict of Tensor
        Bulk effective sample size, likewise.
    divergences : Tensor, shape (chain,)
        Divergent transitions after warm-up.
    accept_rate : Tensor, shape (chain,)
        Share of the iterations after warm-up that moved.
    step_size : Tensor, shape (chain,)
        Step size that warm-up ended with.
    num_warmup : int
        Warm-up iterations a chain, not among the draws.
    seconds : float
        Compilation included.
    engine : str
        "pyro" or "xla".
    energy : Tensor, shape (chain, draw), or None
        Potential and kinetic energy at the end of each trajectory, in nats; None from Pyro, which does not say.
    tree_depth : Tensor, shape (chain, draw), or None
        How often each trajectory was doubled, 10 at most; likewise.
    """

    r_hat: dict[str, Tensor]
    ess: dict[str, Tensor]
    divergences: Tensor
    accept_rate: Tensor
    step_size: Tensor
    num_warmup: int
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "pyro"
    method: str = "nuts"
    is_point: bool = False
    energy: Tensor | None = None
    tree_depth: Tensor | None = None


class HmcInfo(NamedTuple):
    """Run of Hamiltonian Monte Carlo.

    Attributes
    ----------
    r_hat, ess, divergences, accept_rate, step_size, num_warmup
        As in `NutsInfo`.
    trajectory_length : float
        Mean length of a trajectory: step size times number of steps.
    """

    r_hat: dict[str, Tensor]
    ess: dict[str, Tensor]
    divergences: Tensor
    accept_rate: Tensor
    step_size: Tensor
    trajectory_length: float
    num_warmup: int
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "pyro"
    method: str = "hmc"
    is_point: bool = False


class MetropolisInfo(NamedTuple):
    """Run of random-walk Metropolis.

    Attributes
    ----------
    r_hat, ess
        As in `NutsInfo`.
    accept_rate : Tensor, shape (chain,)
        Share of the proposals after warm-up that were accepted.
    step_size : Tensor, shape (chain,)
        What the proposal's standard deviations are multiples of: the factor on the covariance's root.
    num_warmup : int
        Iterations of adaptation a chain, before the first draw.
    thin : int
        Iterations a draw.
    """

    r_hat: dict[str, Tensor]
    ess: dict[str, Tensor]
    accept_rate: Tensor
    step_size: Tensor
    num_warmup: int
    thin: int
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "eager"
    method: str = "metropolis"
    is_point: bool = False


class EmInfo(NamedTuple):
    """Run of expectation maximisation.

    Attributes
    ----------
    objective : Tensor, shape (iteration,)
        The objective after each iteration of the best restart, in nats.
    log_likelihood : float
        Its last value.
    basins : list of dict
        Where the restarts ended, best first: ``objective`` in nats, ``restarts``: how many ended there, ``flaw``:
        None, or why it does not count as an optimum.
    """

    objective: Tensor
    log_likelihood: float
    basins: list[dict]
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "eager"
    method: str = "em"
    is_point: bool = True


class CaviInfo(NamedTuple):
    """Run of coordinate ascent variational inference.

    Attributes
    ----------
    objective : Tensor, shape (sweep,)
        The bound after each sweep of the best restart, in nats.
    elbo : float
        Its last value, exact: no Monte Carlo error.
    basins : list of dict
        Where the restarts ended, as in `EmInfo`.
    """

    objective: Tensor
    elbo: float
    basins: list[dict]
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "eager"
    method: str = "cavi"
    is_point: bool = False


class GibbsInfo(NamedTuple):
    """Run of a Gibbs sampler.

    Attributes
    ----------
    r_hat : dict of Tensor
        Rank-normalised split R̂ of every entry of every site, as in `NutsInfo`.
    ess : dict of Tensor
        Bulk effective sample size, likewise.
    num_warmup : int
        Sweeps a chain before the first draw.
    """

    r_hat: dict[str, Tensor]
    ess: dict[str, Tensor]
    num_warmup: int
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "eager"
    method: str = "gibbs"
    is_point: bool = False


class McemInfo(NamedTuple):
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

    kernel: str
    losses: Tensor
    accept_rate: float
    seconds: float
    seed: int
    converged: bool
    stopped_because: str
    engine: str = "eager"
    method: str = "mcem"
    is_point: bool = True


class ClosedFormInfo(NamedTuple):
    """Run of a solution in closed form.

    Attributes
    ----------
    log_likelihood : float or None
        Of the data at the solution, in nats, if the solver says.
    """

    log_likelihood: float | None
    seconds: float
    seed: int
    converged: bool = True
    stopped_because: str = "solved without iteration"
    engine: str = "eager"
    method: str = "closed_form"
    is_point: bool = True


INFO_TYPES: dict[str, type] = {
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
