"""The single table of models, their guides, their methods and, for every empty cell, the reason.

The command line, the contract tests and the README's grid are drawn from it. A new model is a file and a row here.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from guidebook import guides
from guidebook.inference.kernels import KERNELS
from guidebook.inference.losses import LOSSES
from guidebook.models import factor_analysis, gmm, logistic, mixture, ppca
from guidebook.options import Option


class Empty(NamedTuple):
    """An empty cell: why, and the nearest cell that is not."""

    reason: str
    nearest: str


class Row(NamedTuple):
    """A model of the collection.

    Attributes
    ----------
    model : callable
        The Pyro function; options are bound with ``functools.partial``.
    data : str
        Default data set.
    supervised : bool
        Whether the data are ``(x, y)`` rather than ``(x,)``.
    standardize : bool
        Whether features are z-scored unless told otherwise.
    options : dict of Option
        The model's own.
    guides : dict
        Name → guide, or guide family; hand-written guides of a model with options take the same options.
    identify : callable
        ``(draws, anchor=None) -> quantities`` free of symmetries.
    log_likelihood : callable
        ``(sites, *data) -> (..., n)``, in nats.
    compared : tuple of str
        What ``guidebook compare`` fits where ``--methods`` is left out.
    empty : dict of Empty
        By method or guide.
    steps : dict
        Name of a method that iterates steps → function that makes them from the model's options.
    latent_guides : dict
        Name → hand-written guide of ``latent_model``.
    latent_model : callable or None
        The Pyro function with the rows' latent variables explicit; for ``latent_guides`` and Monte Carlo EM.
    latent_loss : str
        Loss that those guides are trained by unless told otherwise.
    closed_form : callable or None
        ``(x, …) -> params``: maximum likelihood without iteration.
    prior : callable or None
        ``(x, options) -> prior``, where the default prior follows the data: minibatches need it fixed.
    check : callable or None
        ``(x)``: raises ValueError for data that the model cannot have made.
    """

    name: str
    title: str
    model: Callable
    data: str
    supervised: bool
    standardize: bool
    options: dict[str, Option]
    guides: dict[str, Callable]
    identify: Callable
    log_likelihood: Callable
    compared: tuple[str, ...]
    empty: dict[str, Empty]
    steps: dict[str, Callable]
    latent_guides: dict[str, Callable]
    latent_model: Callable | None = None
    latent_loss: str = "trace"
    closed_form: Callable | None = None
    prior: Callable | None = None
    check: Callable | None = None


FAMILIES: dict[str, Callable] = {
    "mean_field": guides.mean_field,
    "low_rank": guides.low_rank,
    "full_rank": guides.full_rank,
    "flow": guides.flow,
    "laplace": guides.laplace,
    "map_point": guides.map_point,
}

_LR = Option(float, None, "step size of the optimiser", 0, False)
_TARGET = Option(float, None, "acceptance probability that the step size aims at", 0, False)
_RESTARTS = Option(int, None, "starts, of which the best wins", 1)
_TOL = Option(float, None, "distance to the limit, in nats, at which a restart stops", 0, False)
_THIN = Option(int, None, "iterations a draw", 1)

METHODS: dict[str, dict[str, Option]] = {
    "svi": {
        "lr": _LR,
        "loss": Option(str, None, "what is minimised", choices=tuple(LOSSES)),
        "num_particles": Option(int, None, "draws of the guide a step", 1),
        "alpha": Option(float, None, "order of the loss renyi"),
        "batch_size": Option(int, None, "rows a step; all of them where left out", 1),
        "alternate": Option(int, None, "gradient steps a half-step of variational EM", 1),
    },
    "nuts": {"target_accept": _TARGET},
    "hmc": {
        "target_accept": _TARGET,
        "trajectory_length": Option(float, None, "length of a trajectory, in the adapted metric", 0, False),
    },
    "metropolis": {"thin": _THIN},
    "em": {
        "num_restarts": _RESTARTS,
        "tol": _TOL,
        "map": Option(bool, False, "whether to maximise the joint density with the prior"),
        "accelerate": Option(bool, None, "whether to extrapolate"),
    },
    "closed_form": {},
    "cavi": {"num_restarts": _RESTARTS, "tol": _TOL},
    "gibbs": {"thin": _THIN},
    "mcem": {
        "lr": _LR,
        "kernel": Option(str, None, "how the E-step's chain moves", choices=tuple(KERNELS)),
        "num_transitions": Option(int, None, "transitions an E-step", 1),
    },
}
SHORT = {"map": "map_point", "laplace": "laplace"}  # methods that are short for svi with a guide

_NO_CLOSED_FORM = "the likelihood has no maximum in closed form"
_EXACT_E_STEP = Empty("its E-step is a sum over components, and needs no Monte Carlo", "em")
_NO_CONDITIONALS = Empty("with the factors summed out, W has no conditional in closed form", "nuts")
_FLAT = Empty("turning the factors changes no density, so that there is no curvature along a turn", "map")
_NO_LAPLACE = {name: family for name, family in FAMILIES.items() if name != "laplace"}
_FACTORS = {
    "latent_dim": Option(int, 2, "number of factors", 1),
    "prior_scale": Option(float, 1.0, "prior standard deviation of the loadings", 0, False),
}

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            name="logistic",
            title="Bayesian logistic regression",
            model=logistic.model,
            data="breast_cancer",
            supervised=True,
            standardize=True,
            options={"prior_scale": Option(float, 1.0, "prior standard deviation of every weight", 0, False)},
            guides=FAMILIES
            | {"mean_field_by_hand": guides.logistic.mean_field, "cholesky_by_hand": guides.logistic.cholesky},
            identify=logistic.identify,
            log_likelihood=logistic.log_likelihood,
            compared=("nuts", "svi:mean_field", "svi:low_rank", "svi:full_rank", "laplace", "gibbs", "cavi"),
            empty={
                "em": Empty("the posterior of the weights has no closed-form E-step", "cavi"),
                "closed_form": Empty(_NO_CLOSED_FORM, "map"),
                "mcem": Empty("there is no latent variable a row to take expectations over", "gibbs"),
            },
            steps={"cavi": logistic.cavi_steps, "gibbs": logistic.gibbs_steps},
            latent_guides={},
        ),
        Row(
            name="gmm",
            title="Gaussian mixture",
            model=gmm.model,
            data="iris",
            supervised=False,
            standardize=False,
            options={
                "num_components": Option(int, 3, "number of components", 1),
                "covariance": Option(
                    str, "full", "shape of the covariances", choices=("full", "tied", "diagonal", "isotropic")
                ),
            },
            guides=FAMILIES | {"mean_field_by_hand": guides.gmm.mean_field},
            identify=gmm.identify,
            log_likelihood=gmm.log_likelihood,
            compared=("nuts", "gibbs", "em", "cavi", "svi:mean_field", "svi:full_rank"),
            empty={"closed_form": Empty(_NO_CLOSED_FORM, "em"), "mcem": _EXACT_E_STEP},
            steps={"em": gmm.em_steps, "cavi": gmm.cavi_steps, "gibbs": gmm.gibbs_steps},
            latent_model=gmm.latent_model,
            latent_guides={"structured": partial(guides.gmm.structured, log_joint=gmm.log_joint_at)},
            latent_loss="enum",
            prior=lambda x, options: gmm.default_prior(x, options["num_components"]),
        ),
        Row(
            name="mixture",
            title="mixture of Poissons or multinomials",
            model=mixture.model,
            data="purchases",
            supervised=False,
            standardize=False,
            options={
                "num_components": Option(int, 4, "number of components", 1),
                "family": Option(str, "poisson", "distribution of the counts", choices=("poisson", "multinomial")),
            },
            guides=FAMILIES | {"mean_field_by_hand": guides.mixture.mean_field},
            identify=mixture.identify,
            log_likelihood=mixture.log_likelihood,
            compared=("nuts", "gibbs", "em", "cavi", "svi:mean_field", "svi:full_rank"),
            empty={"closed_form": Empty(_NO_CLOSED_FORM, "em"), "mcem": _EXACT_E_STEP},
            steps={"em": mixture.em_steps, "cavi": mixture.cavi_steps, "gibbs": mixture.gibbs_steps},
            latent_guides={"structured": guides.mixture.structured},
            latent_model=mixture.latent_model,
            latent_loss="enum",
            prior=lambda x, options: mixture.default_prior(x, options["num_components"], options["family"]),
            check=mixture.check_counts,
        ),
        Row(
            name="ppca",
            title="probabilistic PCA",
            model=ppca.model,
            data="wine",
            supervised=False,
            standardize=True,
            options=_FACTORS,
            guides=_NO_LAPLACE | {"mean_field_by_hand": guides.ppca.mean_field},
            identify=ppca.identify,
            log_likelihood=ppca.log_likelihood,
            compared=("nuts", "closed_form", "em", "svi:linear_encoder", "svi:mean_field", "svi:full_rank"),
            empty={"cavi": _NO_CONDITIONALS, "gibbs": _NO_CONDITIONALS, "laplace": _FLAT},
            steps={"em": ppca.em_steps},
            latent_guides={"linear_encoder": guides.ppca.linear_encoder, "factors": guides.ppca.factors},
            latent_model=ppca.latent_model,
            closed_form=ppca.maximum_likelihood,
        ),
        Row(
            name="factor_analysis",
            title="factor analysis",
            model=factor_analysis.model,
            data="wine",
            supervised=False,
            standardize=True,
            options=_FACTORS,
            guides=_NO_LAPLACE | {"mean_field_by_hand": guides.factor_analysis.mean_field},
            identify=factor_analysis.identify,
            log_likelihood=factor_analysis.log_likelihood,
            compared=("nuts", "em", "svi:linear_encoder", "svi:mean_field", "svi:full_rank"),
            empty={
                "cavi": _NO_CONDITIONALS,
                "gibbs": _NO_CONDITIONALS,
                "closed_form": Empty("only equal noise variances have one", "em"),
                "laplace": _FLAT,
            },
            steps={"em": factor_analysis.em_steps},
            latent_guides={
                "linear_encoder": guides.factor_analysis.linear_encoder,
                "factors": guides.factor_analysis.factors,
            },
            latent_model=factor_analysis.latent_model,
        ),
    )
}
