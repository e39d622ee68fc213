"""The single table of models, their guides, their methods and, for every empty cell, the reason.

The command line, the contract tests and the README's grid are drawn from it. A new model is a file and a row here.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guidebook import guides
from guidebook.inference.kernels import KERNELS
from guidebook.inference.losses import LOSSES
from guidebook.models import factor_analysis, gmm, lda, logistic, mixture, ppca, vae
from guidebook.options import Option


class Empty(NamedTuple):
    """An empty cell: why, and the nearest cell that is not."""

    reason: str
    nearest: str


class Small(NamedTuple):
    """Default data of some cells of a row.

    Attributes
    ----------
    cells : tuple of str
        Methods and guides.
    data : str
    options : dict
        Defaults that go with them.
    """

    cells: tuple[str, ...]
    data: str
    options: dict[str, Any]


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
    losses : dict of str
        Guide → name of the loss that it is trained by unless told otherwise, where that is not "trace".
    closed_form : callable or None
        ``(x, …) -> params``: maximum likelihood without iteration.
    prior : callable or None
        ``(x, options) -> prior``, where the default prior follows the data: minibatches need it fixed.
    check : callable or None
        ``(x)``: raises ValueError for data that the model cannot have made.
    prepare : callable or None
        ``(x, options) -> x``: brings data to what the model takes.
    derive : callable or None
        ``(params) -> quantities``, where the model's own sites mean nothing from one fit to the next: joined to the
        draws of every fit, for ``identify``.
    overview : callable or None
        ``(x) -> identify``: what to compare instead of ``identify``'s quantities on data of this size.
    small : Small or None
        Data and options of those cells for which the default data are too large.
    counts : dict of int
        ``steps`` of svi, ``draws`` and ``warmup`` of samplers, and options of methods, on the default data, where the
        methods' own do not suit.
    default_guide : str
        What svi takes where none is named.
    num_draws : int
        From a fitted guide; with a tenth of ten thousand a perfect fit looks shifted by noise alone, but where every
        row has a site of its own that many are dear.
    amortised : tuple of str
        Guides that compute the rows' own sites from the rows: those are fitted in minibatches unless told otherwise.
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
    closed_form: Callable | None = None
    prior: Callable | None = None
    check: Callable | None = None
    prepare: Callable | None = None
    derive: Callable | None = None
    overview: Callable | None = None
    small: Small | None = None
    losses: Mapping[str, str] = MappingProxyType({})
    counts: Mapping[str, int] = MappingProxyType({})
    default_guide: str = "mean_field"
    num_draws: int = 10_000
    amortised: tuple[str, ...] = ()


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

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}

METHODS: dict[str, dict[str, Option]] = {
    "svi": {
        "lr": _LR,
        "loss": Option(str, None, "what is minimised", choices=tuple(LOSSES)),
        "num_particles": Option(int, None, "draws of the guide a step", 1),
        "renyi_order": Option(float, None, "order of the loss renyi"),
        "batch_size": Option(int, None, "rows a step; all of them where left out", 1),
        "alternate": Option(int, None, "gradient steps a half-step of variational EM", 1),
        "optim": Option(str, None, "optimiser", choices=tuple(OPTIMISERS)),
        "warm_up": Option(int, None, "steps over which the rows' divergence from their prior comes in", 1),
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

_NO_MODE = Empty("concentrations below one leave the density without a mode", "cavi")
_NO_DECODER = "the decoder is a network: no step over it has a closed form"
_MANY_FACTORS = "it would be one distribution over the factors of all rows together"
_MEMORISES = Empty(
    "points for the factors let the decoder memorise the rows; prior_scale gives the weights' MAP", "svi"
)


def _pixels(x: Tensor, options: dict[str, Any]) -> Tensor:
    """Ones and zeros for a Bernoulli decoder, values without gaps for a Gaussian one."""
    whole = bool((x == x.floor()).all()) and float(x.min()) >= 0
    if options["likelihood"] == "gaussian":
        return vae.dequantise(x, int(x.max()) + 1) if whole else x
    if float(x.min()) < 0:
        raise ValueError(
            "vae: the Bernoulli likelihood takes intensities from 0 up; --set likelihood=gaussian takes any"
        )
    top = float(x.max())
    return vae.binarise(x / top if top > 0 else x, options["binarise"])


def _decoded_likelihood(params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Importance-sampled log likelihood of each row with the encoder as proposal; NaN where there is none."""
    try:
        return vae.log_likelihood(params, x, num_samples=200)
    except ValueError:
        return torch.full((1,), math.nan)


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
            losses={"structured": "enum"},
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
            losses={"structured": "enum"},
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
        Row(
            name="lda",
            title="latent Dirichlet allocation",
            model=lda.model,
            data="reuters",
            supervised=False,
            standardize=False,
            options={
                "num_topics": Option(int, 20, "number of topics", 1),
                "alpha": Option(float, 0.1, "concentration of a document's weights", 0, False),
                "eta": Option(float, 0.01, "concentration of a topic's words", 0, False),
            },
            guides={name: family for name, family in FAMILIES.items() if name != "map_point"}
            | {"mean_field_by_hand": guides.lda.mean_field, "encoder": guides.lda.encoder},
            identify=lda.identify,
            log_likelihood=lda.log_likelihood,
            compared=("gibbs", "cavi", "svi:mean_field_by_hand"),
            empty={
                "em": Empty("a document's weights and the topics' words have no joint closed form", "cavi"),
                "closed_form": Empty(_NO_CLOSED_FORM, "cavi"),
                "mcem": Empty("topics have a prior, and are no parameters to maximise over", "gibbs"),
                "map": _NO_MODE,
                "map_point": _NO_MODE._replace(nearest="mean_field"),
            },
            steps={"cavi": lda.cavi_steps, "gibbs": lda.gibbs_steps},
            latent_model=lda.latent_model,
            latent_guides={},
            check=lda.check_counts,
            overview=lambda x: partial(lda.overview, words=x.sum(0).topk(min(x.shape[1], 100)).indices),
            small=Small(
                ("nuts", "hmc", "metropolis", *(name for name in FAMILIES if name != "map_point")),
                "three_documents",
                {"num_topics": 2, "alpha": 1.0, "eta": 1.0},
            ),
            losses={"mean_field_by_hand": "mean_field"},
            counts={"steps": 1500, "draws": 50, "warmup": 1000, "num_restarts": 2},
            default_guide="mean_field_by_hand",
            num_draws=200,
            amortised=("encoder",),
        ),
        Row(
            name="vae",
            title="variational autoencoder",
            model=vae.model,
            data="digits",
            supervised=False,
            standardize=False,
            options={
                "latent_dim": Option(int, 2, "number of factors", 1),
                "likelihood": Option(str, "bernoulli", "of a row given its factors", choices=("bernoulli", "gaussian")),
                "network": Option(str, "mlp", "kind of decoder and encoder", choices=("mlp", "conv", "linear")),
                "hidden": Option(int, None, "units of the hidden layer", 1),
                "shared_variance": Option(bool, False, "whether one variance serves all columns of gaussian"),
                "prior_scale": Option(float, None, "prior standard deviation of the decoder's weights", 0, False),
                "binarise": Option(str, "threshold", "how grey becomes 0 or 1", choices=("threshold", "fixed")),
            },
            guides={},
            identify=lambda draws, anchor=None: {name: draws[name] for name in ("x_mean", "x_sd")},
            log_likelihood=_decoded_likelihood,
            compared=("svi:encoder", "svi:full_covariance_encoder", "svi:flow_encoder"),
            empty={
                "em": Empty(_NO_DECODER, "mcem"),
                "closed_form": Empty("only a linear decoder has one, and that is ppca", "svi"),
                "cavi": Empty(_NO_DECODER, "svi"),
                "gibbs": Empty(_NO_DECODER, "mcem"),
                **dict.fromkeys(
                    ("nuts", "hmc", "metropolis"), Empty("its weights are parameters without a prior", "mcem")
                ),
                "map": _MEMORISES,
                "map_point": _MEMORISES._replace(nearest="encoder"),
                "laplace": Empty(_MANY_FACTORS, "svi"),
                **dict.fromkeys(("low_rank", "full_rank", "flow"), Empty(_MANY_FACTORS, "full_covariance_encoder")),
                "mean_field": Empty("the autoguide cannot be fitted in minibatches", "factors"),
            },
            steps={},
            latent_guides={
                "encoder": guides.vae.encoder,
                "full_covariance_encoder": guides.vae.full_covariance_encoder,
                "flow_encoder": guides.vae.flow_encoder,
                "semi_amortised": guides.vae.semi_amortised,
                "factors": guides.vae.factors,
            },
            latent_model=vae.model,
            prepare=_pixels,
            derive=vae.generated_moments,
            default_guide="encoder",
            num_draws=200,
            amortised=("encoder", "full_covariance_encoder", "flow_encoder", "semi_amortised"),
        ),
    )
}
