"""Rows of the regressions."""

from collections.abc import Mapping
from typing import Any

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import NO_CLOSED_FORM, Choosing, Data, Guide, Row, Unavailable, figures
from guidebook.catalog.methods import FAMILIES
from guidebook.models import linear, logistic
from guidebook.workflow.options import Option

LOGISTIC = Row(
    name="logistic",
    title="Bayesian logistic regression",
    model=logistic.model,
    data=Data("breast_cancer", supervised=True, standardize=True),
    options={"prior_scale": Option(float, 1.0, "prior standard deviation of every weight", 0, False)},
    guides=FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.logistic.mean_field),
        "cholesky_by_hand": Guide(guides.logistic.cholesky),
    },
    identify=logistic.identify,
    log_likelihood=logistic.log_likelihood,
    default_methods=("nuts", "svi:mean_field", "svi:low_rank", "svi:full_rank", "laplace", "gibbs", "cavi"),
    unavailable={
        "em": Unavailable("the posterior of the weights has no closed-form E-step", "cavi"),
        "closed_form": Unavailable(NO_CLOSED_FORM, "map"),
        "mcem": Unavailable("no row has a latent variable to take expectations over", "gibbs"),
    },
    steps={"cavi": logistic.cavi_steps, "gibbs": logistic.gibbs_steps},
    choosing=Choosing("gibbs"),
    default_options={"online": {"num_epochs": 200}},
    figures=figures("weights"),
    coords=lambda columns, x, options: {"w": [["bias", *columns]]},
    per_row=outcomes.labels,
    findings=findings.odds,
)


def _excluded(options: Mapping[str, Any]) -> dict[str, Unavailable]:
    found = {}
    if options["noise"] == "student":
        found["closed_form"] = Unavailable("with Student noise the posterior has no closed form", "gibbs")
    if options["prior"] == "horseshoe":
        nested = Unavailable("the horseshoe's scales have no conditionals in closed form", "nuts")
        found |= dict.fromkeys(("closed_form", "cavi", "gibbs"), nested)
        by_hand = Unavailable("it is for the normal prior", "full_rank")
        found |= dict.fromkeys(("mean_field_by_hand", "cholesky_by_hand", "conjugate"), by_hand)
    return found


LINEAR = Row(
    name="linear",
    title="Bayesian linear regression",
    model=linear.model,
    data=Data("diabetes", supervised=True, continuous=True, standardize=True),
    options={
        "noise": Option(str, "normal", "distribution of the noise", choices=("normal", "student")),
        "df": Option(float, 4.0, "degrees of freedom of Student noise", 0, False),
        "prior": Option(str, "normal", "prior of the weights", choices=("normal", "horseshoe")),
        "prior_scale": Option(float, 1.0, "prior standard deviation of every weight, in that of the noise", 0, False),
        "relevant_share": Option(float, 0.25, "share of the features that the horseshoe expects to matter", 0, False),
    },
    guides=FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.linear.mean_field),
        "cholesky_by_hand": Guide(guides.linear.cholesky),
        "conjugate": Guide(guides.linear.conjugate),
    },
    identify=linear.identify,
    log_likelihood=linear.log_likelihood,
    default_methods=("closed_form", "nuts", "gibbs", "cavi", "dadvi", "svi:mean_field", "svi:full_rank", "em"),
    unavailable={"mcem": Unavailable("its E-step has a closed form and needs no Monte Carlo", "em")},
    steps={
        "em": linear.em_steps,
        "closed_form": linear.closed_form,
        "cavi": linear.cavi_steps,
        "gibbs": linear.gibbs_steps,
    },
    is_exact=True,
    choosing=Choosing("gibbs"),
    shared=lambda options, x, y: {"units": linear.units_of(y)},
    excluded=_excluded,
    default_options={"online": {"num_epochs": 200}},
    figures=figures("weights"),
    ladder=("closed_form", "dadvi", "gibbs", "nuts"),
    coords=lambda columns, x, options: {"w": [["bias", *columns]]},
    per_row=outcomes.targets,
    findings=findings.effects,
)
