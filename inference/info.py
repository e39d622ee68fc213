"""Run records: one type per inference method, all with the fields of `Info`."""

from dataclasses import dataclass, field

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
    log_evidence : float or None
        Log evidence in nats, where it has a closed form.
    r_hat : dict of Tensor, or None
        Samplers: rank-normalised split R̂ of each entry of each site (Vehtari et al. 2021). These are raw sites: a
        mixture's say nothing before its components are matched.
    ess : dict of Tensor, or None
        Samplers: bulk effective sample sizes, shaped as ``r_hat``.
    divergences : Tensor, shape (chain,), or None
        Hamiltonian samplers: number of divergent transitions after warm-up.
    per_row : list of str, or None
        Deterministic sites with a value per row of the data, of a model whose latent sites have none: comparisons leave
        them out unless told otherwise.
    learned : list of str
        Fits by a guide: names of the model's own parameters, of which the draws know one value.
    data_sha256 : str or None
        SHA-256 of the data that were fitted: bytes, shapes and types of tensors, and plain values. None if they are
        larger than 256 MiB, sparse, or anything else.
    streamed : dict or None
        Of data read in blocks: their number of ``rows``; ``rows_held``, most of them that were in memory at once;
        ``bytes_held``, the size of these; and ``bytes_kept``, that of what a fit keeps of all rows from one pass to the
        next, if it does.
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
    log_evidence: float | None = None
    r_hat: dict[str, Tensor] | None = None
    ess: dict[str, Tensor] | None = None
    divergences: Tensor | None = None
    per_row: list[str] | None = None
    learned: list[str] = field(default_factory=list)
    data_sha256: str | None = None
    streamed: dict[str, int] | None = None


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
class DadviInfo(Info):
    """Record of variational inference with fixed draws.

    Attributes
    ----------
    elbo_se : float or None
        Monte Carlo standard error of ``elbo``, in nats, as if draws were independent: balanced ones err less.
    log_weights : Tensor, shape (draw,)
        log p(x, z) - log q(z) at each draw, in nats.
    num_draws : int
        Fixed draws of the objective in the last round.
    linear_response : bool
        Whether the covariance of the draws is by linear response.
    rounds : list of dict
        Per round of the best restart: ``num_draws``; ``elbo`` at these draws, in nats; ``shift``, how far means moved
        since the round before, at most, in sds; ``spread``, how far sds did, relative to them (None in the first).
    optima : list of dict
        Optima that restarts reached, best first: ``elbo`` in nats; ``restarts``, how many ended there. The ELBO of all
        but the best five is a little low: that of an independent normal in coordinates of the curvature at the mode.
    gradients : int
        Gradients of the log joint that were taken; a product with its Hessian counts as two.
    """

    method: str = "dadvi"
    elbo_se: float | None = None
    log_weights: Tensor | None = None
    num_draws: int
    linear_response: bool
    rounds: list[dict]
    optima: list[dict]
    gradients: int


@dataclass(frozen=True, kw_only=True)
class PathfinderInfo(Info):
    """Record of multi-path Pathfinder; ``elbo`` is that of the best path's normal.

    Attributes
    ----------
    elbos : Tensor, shape (path,)
        Largest ELBO along each path, in nats, from a few draws; minus infinity for a path without a normal.
    num_steps : Tensor, shape (path,)
        Steps that each path made.
    best_steps : Tensor, shape (path,)
        Steps after which the ELBO was largest; -1 for a path without a normal.
    gradients : int
        Points at which a gradient was taken.
    log_weights : Tensor, shape (draw,)
        log p(x, z) - log q(z) at draws of the mixture of normals, in nats, before smoothing and resampling.
    """

    method: str = "pathfinder"
    engine: str = "batched"
    elbos: Tensor
    num_steps: Tensor
    best_steps: Tensor
    gradients: int
    log_weights: Tensor


@dataclass(frozen=True, kw_only=True)
class ChainsInfo(Info):
    """What `hmc`, `nuts` and `metropolis` have in common.

    Attributes
    ----------
    accept_rate : Tensor, shape (chain,)
        Mean acceptance probability after warm-up; in Metropolis, the fraction of proposals accepted.
    step_size : Tensor, shape (chain,)
        Step size at the end of warm-up; in Metropolis, the scale of the proposal relative to the covariance learned.
    num_warmup : int
        Warm-up iterations per chain, before the first draw; 0 for chains that went on from an earlier run.
    ends : Tensor, shape (chain, d), or None
        Where chains stood after their last draw, on the unconstrained scale; None in files of earlier versions.
    """

    accept_rate: Tensor
    step_size: Tensor
    num_warmup: int
    ends: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class HmcInfo(ChainsInfo):
    """Record of Hamiltonian Monte Carlo.

    Attributes
    ----------
    trajectory_length : float
        Mean length of a trajectory: step size times number of steps.
    inverse_mass : Tensor, shape (chain, d, d) or (chain, d), or None
        Inverse mass matrix after warm-up, or its diagonal, in the order of ``ends``.
    diverging : Tensor of bool, shape (chain, draw), or None
        Which transitions diverged.
    """

    method: str = "hmc"
    engine: str = "pyro"
    trajectory_length: float
    inverse_mass: Tensor | None = None
    diverging: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class NutsInfo(ChainsInfo):
    """Record of the No-U-Turn sampler.

    Attributes
    ----------
    metric : {"diagonal", "dense"}
        Form of the mass matrix after warm-up; if chains differ, that of most.
    inverse_mass : Tensor, shape (chain, d, d) or (chain, d), or None
        Inverse mass matrix after warm-up, or its diagonal, in the order of ``ends``.
    energy : Tensor, shape (chain, draw), or None
        Sum of potential and kinetic energy at the end of each trajectory, in nats; None with Pyro's engine.
    tree_depth : Tensor, shape (chain, draw), or None
        Number of doublings of each trajectory, at most 10; None with Pyro's engine.
    diverging : Tensor of bool, shape (chain, draw), or None
        Which transitions diverged; None in files saved before it was kept.
    """

    method: str = "nuts"
    engine: str = "pyro"
    metric: str = "dense"
    inverse_mass: Tensor | None = None
    energy: Tensor | None = None
    tree_depth: Tensor | None = None
    diverging: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class MetropolisInfo(ChainsInfo):
    """Record of random-walk Metropolis.

    Attributes
    ----------
    thin : int
        Iterations per draw.
    proposal : Tensor, shape (chain, d, d), or None
        Root of the proposal's covariance at a step size of one, in the order of ``ends``.
    """

    method: str = "metropolis"
    thin: int
    proposal: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class OnlineInfo(Info):
    """Record of learning from batches that are read once.

    Attributes
    ----------
    scores : Tensor, shape (batch,)
        How well each batch was predicted before it was learned from, in nats: see the steps; of a guide, the ELBO per
        row, an unbiased estimate of a lower bound of its log density.
    num_batches, num_rows : int
        Batches and rows that have been read, those of the fits before included.
    elbo_se : float or None
        Monte Carlo standard error of ``elbo``, which is that of the last tenth of the batches, in nats.
    optim : str or None
        Of a guide: the optimiser.
    state : dict of Tensor, or None
        Of a guide: what a fit that goes on needs, on the unconstrained scale: last iterates, their averages, which are
        the answer, and the optimiser's running means.
    """

    method: str = "online"
    scores: Tensor
    num_batches: int
    num_rows: int
    elbo_se: float | None = None
    optim: str | None = None
    state: dict[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class GibbsInfo(Info):
    """Record of a Gibbs sampler.

    Attributes
    ----------
    num_warmup : int
        Sweeps per chain before the first draw; 0 for chains that went on from an earlier run.
    state : dict of Tensor, or None
        All that the conditionals had drawn last, (chain, *shape), hidden variables included.
    """

    method: str = "gibbs"
    num_warmup: int
    state: dict[str, Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class AscentInfo(Info):
    """What `em` and `cavi` have in common.

    Attributes
    ----------
    objective : Tensor, shape (iteration,)
        Objective after each iteration of the best restart, in nats.
    optima : list of dict
        Optima that restarts reached, best first: ``objective`` in nats; ``restarts``, how many ended there;
        ``degenerate``, None or why it does not count.
    """

    objective: Tensor
    optima: list[dict]


@dataclass(frozen=True, kw_only=True)
class EmInfo(AscentInfo):
    """Record of expectation maximisation; ``log_likelihood`` is the last value of ``objective``."""

    method: str = "em"
    is_point: bool = True


@dataclass(frozen=True, kw_only=True)
class CaviInfo(AscentInfo):
    """Record of coordinate ascent; ``elbo`` is the last value of ``objective``, without Monte Carlo error."""

    method: str = "cavi"


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


@dataclass(frozen=True, kw_only=True)
class CheckInfo(Info):
    """Record of the draws that `check` moved towards the posterior.

    Attributes
    ----------
    nested_r_hat : Tensor, shape (quantity,)
        Of each quantity of `Check.table`: near 1 if chains have forgotten where they began (Margossian et al. 2024).
    accept_rate : float
        Mean acceptance probability.
    step_size : float
        Leapfrog step, in coordinates of about unit scale.
    """

    method: str = "check"
    nested_r_hat: Tensor
    accept_rate: float
    step_size: float


@dataclass(frozen=True, kw_only=True)
class FitInfo(Info):
    """Record of `fit`: that of the posterior chosen, and what was tried; ``seconds`` are those of all.

    Attributes
    ----------
    chosen : str
        Name of the method chosen; "…, moved" for draws that `check` has moved.
    judgement : str
        "good", "usable", "bad" or "cannot say".
    rungs : list of dict
        What was tried, in order: ``method``; ``seconds`` and ``gradients``, with the judging, the latter None if not
        counted; ``judgement``, or "failed" or "not tried"; ``error``, the worst shift of a mean in sds, or of an sd on
        a scale on which 25 % count as 0.25, None if not known; ``sentence``, why.
    log_weights : Tensor, shape (draw,), or None
        log p(x, z) - log q(z) at each draw, in nats, as in the record of the method chosen.
    """

    method: str = "fit"
    chosen: str
    judgement: str
    rungs: list[dict]
    log_weights: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ExternalInfo(Info):
    """Record of draws that another library made: ``method`` is its name, as far as it says; ``seed`` is unknown, -1.

    ``seconds`` is what the library recorded, else nan.
    """

    method: str = "external"
    engine: str = "unknown"
    seed: int = -1


_TYPES = (
    SviInfo,
    DadviInfo,
    PathfinderInfo,
    NutsInfo,
    HmcInfo,
    MetropolisInfo,
    EmInfo,
    CaviInfo,
    OnlineInfo,
    GibbsInfo,
    McemInfo,
    ClosedFormInfo,
    CheckInfo,
    FitInfo,
    ExternalInfo,
)
INFO_TYPES: dict[str, type[Info]] = {kind.method: kind for kind in _TYPES}
