"""Rows of the mixtures."""

from guidebook import guides
from guidebook.catalog.entry import NO_CLOSED_FORM, Empty, Row
from guidebook.catalog.methods import FAMILIES
from guidebook.models import gmm, mixture
from guidebook.workflow.options import Option

_EXACT_E_STEP = Empty("its E-step is a sum over components, and needs no Monte Carlo", "em")

GMM = Row(
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
    empty={"closed_form": Empty(NO_CLOSED_FORM, "em"), "mcem": _EXACT_E_STEP},
    steps={"em": gmm.em_steps, "cavi": gmm.cavi_steps, "gibbs": gmm.gibbs_steps},
    latent_model=gmm.latent_model,
    latent_guides={"structured": guides.gmm.structured},
    losses={"structured": "enum"},
    prior=lambda x, options: gmm.default_prior(x, options["num_components"]),
)

MIXTURE = Row(
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
    empty={"closed_form": Empty(NO_CLOSED_FORM, "em"), "mcem": _EXACT_E_STEP},
    steps={"em": mixture.em_steps, "cavi": mixture.cavi_steps, "gibbs": mixture.gibbs_steps},
    latent_guides={"structured": guides.mixture.structured},
    latent_model=mixture.latent_model,
    losses={"structured": "enum"},
    prior=lambda x, options: mixture.default_prior(x, options["num_components"], options["family"]),
    check=mixture.check_counts,
)
