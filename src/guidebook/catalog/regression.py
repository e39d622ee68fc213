"""Row of logistic regression."""

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import NO_CLOSED_FORM, Choosing, Data, Guide, Row, Unavailable
from guidebook.catalog.methods import FAMILIES
from guidebook.models import logistic
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
    coords=lambda columns, x, options: {"w": [["bias", *columns]]},
    per_row=outcomes.labels,
    findings=findings.odds,
)
