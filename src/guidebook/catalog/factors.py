"""Rows of the factor models."""

from guidebook import guides
from guidebook.catalog.entry import Empty, Row
from guidebook.catalog.methods import FAMILIES
from guidebook.models import factor_analysis, ppca
from guidebook.workflow.options import Option

_NO_CONDITIONALS = Empty("with the factors summed out, W has no conditional in closed form", "nuts")
_FLAT = Empty("turning the factors changes no density, so that there is no curvature along a turn", "map")
_NO_LAPLACE = {name: family for name, family in FAMILIES.items() if name != "laplace"}
_FACTORS = {
    "latent_dim": Option(int, 2, "number of factors", 1),
    "prior_scale": Option(float, 1.0, "prior standard deviation of the loadings", 0, False),
}

PPCA = Row(
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
)

FACTOR_ANALYSIS = Row(
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
)
