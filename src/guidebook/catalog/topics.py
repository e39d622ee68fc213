"""Rows of the topic models."""

from functools import partial

from guidebook import guides
from guidebook.catalog.entry import NO_CLOSED_FORM, Empty, Row, Small
from guidebook.catalog.methods import FAMILIES
from guidebook.models import lda
from guidebook.workflow.options import Option

_NO_MODE = Empty("concentrations below one leave the density without a mode", "cavi")

LDA = Row(
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
        "closed_form": Empty(NO_CLOSED_FORM, "cavi"),
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
)
