"""Rows of the mixtures."""

from typing import Any

from torch import Tensor

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import NO_CLOSED_FORM, Choosing, Data, Guide, Row, Unavailable, figures
from guidebook.catalog.gaps import impute_mixture
from guidebook.catalog.methods import FAMILIES
from guidebook.inference import em
from guidebook.models import gmm, mixture
from guidebook.workflow.options import Option

_DEFAULT_METHODS = ("nuts", "gibbs", "em", "cavi", "svi:mean_field", "svi:full_rank")
_UNAVAILABLE = {
    "closed_form": Unavailable(NO_CLOSED_FORM, "em"),
    "mcem": Unavailable("its E-step is a sum over components and needs no Monte Carlo", "em"),
}
_OF_COVARIANCES = ("covariance", "precision", "bartlett_diagonal", "bartlett_upper")  # by shape; not tied


def _gmm_criteria(x: Tensor, options: dict[str, Any], seed: int) -> dict[str, float]:
    """Return BIC and ICL at the maximum of the likelihood; ArithmeticError if every restart is degenerate."""
    sites = dict(em(gmm.em_steps(options["num_components"], options["covariance"]), x, seed=seed).params)
    return {"bic": float(gmm.bic(sites, x)), "icl": float(gmm.icl(sites, x))}


def _mixture_criteria(x: Tensor, options: dict[str, Any], seed: int) -> dict[str, float]:
    sites = dict(em(mixture.em_steps(options["num_components"], options["family"]), x, seed=seed).params)
    return {"bic": float(mixture.bic(sites, x)), "icl": float(mixture.icl(sites, x))}


GMM = Row(
    name="gmm",
    title="Gaussian mixture",
    model=gmm.model,
    data=Data("iris", impute=impute_mixture, complete=gmm.complete),
    options={
        "num_components": Option(int, 3, "number of components", 1),
        "covariance": Option(
            str, "full", "shape of the covariances", choices=("full", "tied", "diagonal", "isotropic")
        ),
    },
    guides=FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.gmm.mean_field),
        "structured": Guide(guides.gmm.structured, latent=True, loss="enum"),
    },
    identify=gmm.identify,
    log_likelihood=gmm.log_likelihood,
    default_methods=_DEFAULT_METHODS,
    unavailable=_UNAVAILABLE,
    steps={"em": gmm.em_steps, "cavi": gmm.cavi_steps, "gibbs": gmm.gibbs_steps},
    choosing=Choosing("gibbs", criteria=_gmm_criteria),
    latent_model=gmm.latent_model,
    shared=lambda options, x: {"prior": gmm.default_prior(x, options["num_components"])},
    exchangeable=lambda options: {
        site: 0 for site in ("loc", "weights", *(_OF_COVARIANCES if options["covariance"] != "tied" else ()))
    },
    figures=figures("gmm"),
    per_row=outcomes.segments(gmm),
    findings=findings.normal_segments,
    ladder=("gibbs", "dadvi", "nuts"),  # exact, and sooner done than a normal is fitted, which is seldom good enough
    coords=lambda columns, x, options: {
        "loc": [columns],
        "covariance": [columns] * {"full": 2, "tied": 2, "diagonal": 1, "isotropic": 0}[options["covariance"]],
    },
)

MIXTURE = Row(
    name="mixture",
    title="mixture of Poissons or multinomials",
    model=mixture.model,
    data=Data("purchases", validate=mixture.check_counts),
    options={
        "num_components": Option(int, 4, "number of components", 1),
        "family": Option(str, "poisson", "distribution of the counts", choices=("poisson", "multinomial")),
    },
    guides=FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.mixture.mean_field),
        "structured": Guide(guides.mixture.structured, latent=True, loss="enum"),
    },
    identify=mixture.identify,
    log_likelihood=mixture.log_likelihood,
    default_methods=_DEFAULT_METHODS,
    unavailable=_UNAVAILABLE,
    steps={"em": mixture.em_steps, "cavi": mixture.cavi_steps, "gibbs": mixture.gibbs_steps},
    choosing=Choosing(
        "gibbs",
        criteria=_mixture_criteria,
        incomparable={"family": "a multinomial's densities are of rows whose totals are given"},
    ),
    latent_model=mixture.latent_model,
    shared=lambda options, x: {"prior": mixture.default_prior(x, options["num_components"], options["family"])},
    exchangeable=lambda options: {"rate" if options["family"] == "poisson" else "probs": 0, "weights": 0},
    figures=figures("mixture"),
    per_row=outcomes.segments(mixture),
    findings=findings.count_segments,
    ladder=("dadvi", "gibbs", "nuts"),
    coords=lambda columns, x, options: {"rate": [columns], "probs": [columns]},
)
