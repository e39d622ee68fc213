"""Rows of the factor models."""

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import Choosing, Data, Guide, Row, Unavailable, figures
from guidebook.catalog.gaps import impute_factors
from guidebook.catalog.methods import FAMILIES
from guidebook.models import factor_analysis, linear_gaussian, ppca
from guidebook.workflow.options import Option

_NO_CONDITIONALS = Unavailable("with the factors summed out, W has no conditional in closed form", "nuts")
_UNAVAILABLE = {
    "cavi": _NO_CONDITIONALS,
    "gibbs": _NO_CONDITIONALS,
    "laplace": Unavailable("the density is flat along rotations of the factors, so it has no curvature there", "map"),
}
_FAMILIES = {name: family for name, family in FAMILIES.items() if name != "laplace"}
_OPTIONS = {
    "latent_dim": Option(int, 2, "number of factors", 1),
    "prior_scale": Option(float, 1.0, "prior standard deviation of the loadings", 0, False),
}

PPCA = Row(
    name="ppca",
    title="probabilistic PCA",
    model=ppca.model,
    data=Data("wine", standardize=True, impute=impute_factors(True), complete=linear_gaussian.complete),
    options=_OPTIONS,
    guides=_FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.ppca.mean_field),
        "linear_encoder": Guide(guides.ppca.linear_encoder, latent=True),
        "factors": Guide(guides.ppca.factors, latent=True),
    },
    identify=ppca.overview,
    log_likelihood=ppca.log_likelihood,
    default_methods=("nuts", "closed_form", "em", "svi:linear_encoder", "svi:mean_field", "svi:full_rank"),
    unavailable=_UNAVAILABLE,
    steps={"em": ppca.em_steps, "closed_form": ppca.maximum_likelihood},
    choosing=Choosing(
        "nuts",
        criteria=lambda x, options, seed: {"laplace_evidence": ppca.laplace_evidence(x, options["latent_dim"])},
    ),
    latent_model=ppca.latent_model,
    default_options={"online": {"num_epochs": 200}},
    figures=figures("factors"),
    per_row=outcomes.factors,
    findings=findings.factor_loadings,
    coords=lambda columns, x, options: {"loc": [columns], "covariance": [columns] * 2, "variance": [columns]},
)

FACTOR_ANALYSIS = Row(
    name="factor_analysis",
    title="factor analysis",
    model=factor_analysis.model,
    data=Data("wine", standardize=True, impute=impute_factors(False), complete=linear_gaussian.complete),
    options=_OPTIONS,
    guides=_FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.factor_analysis.mean_field),
        "linear_encoder": Guide(guides.factor_analysis.linear_encoder, latent=True),
        "factors": Guide(guides.factor_analysis.factors, latent=True),
    },
    identify=factor_analysis.overview,
    log_likelihood=factor_analysis.log_likelihood,
    default_methods=("nuts", "em", "svi:linear_encoder", "svi:mean_field", "svi:full_rank"),
    unavailable=_UNAVAILABLE | {"closed_form": Unavailable("only equal noise variances have one", "em")},
    steps={"em": factor_analysis.em_steps},
    choosing=Choosing("nuts"),
    latent_model=factor_analysis.latent_model,
    default_options={"online": {"num_epochs": 200}},
    figures=figures("factors"),
    per_row=outcomes.factors,
    findings=findings.factor_loadings,
    coords=lambda columns, x, options: {
        "loc": [columns],
        "covariance": [columns] * 2,
        "variance": [columns],
        "noise_variance": [columns],
    },
)
