"""Row of the topic model."""

from functools import partial

from guidebook import guides
from guidebook.catalog.entry import NO_CLOSED_FORM, Data, Guide, Row, SmallData, Unavailable, figures
from guidebook.catalog.methods import FAMILIES
from guidebook.models import lda
from guidebook.workflow.options import Option

_NO_MODE = Unavailable("with concentrations below one the density has no mode", "cavi")
_FAMILIES = {name: family for name, family in FAMILIES.items() if name != "map_point"}

LDA = Row(
    name="lda",
    title="latent Dirichlet allocation",
    model=lda.model,
    data=Data(
        "reuters",
        validate=lda.check_counts,
        small=SmallData(
            ("dadvi", "nuts", "hmc", "metropolis", *_FAMILIES),
            "three_documents",
            {"num_topics": 2, "alpha": 1.0, "eta": 1.0},
        ),
    ),
    options={
        "num_topics": Option(int, 20, "number of topics", 1),
        "alpha": Option(float, 0.1, "concentration of a document's topic weights", 0, False),
        "eta": Option(float, 0.01, "concentration of a topic's words", 0, False),
    },
    guides=_FAMILIES
    | {
        "mean_field_by_hand": Guide(guides.lda.mean_field, loss="mean_field"),
        "encoder": Guide(guides.lda.encoder, minibatch=True),
    },
    identify=lda.identify,
    log_likelihood=lda.log_likelihood,
    default_methods=("gibbs", "cavi", "svi:mean_field_by_hand"),
    unavailable={
        "em": Unavailable("a document's weights and the topics' words have no joint closed form", "cavi"),
        "closed_form": Unavailable(NO_CLOSED_FORM, "cavi"),
        "mcem": Unavailable("topics have a prior, so they are no parameters to maximise over", "gibbs"),
        "map": _NO_MODE,
        "map_point": _NO_MODE._replace(nearest="mean_field"),
    },
    steps={"cavi": lda.cavi_steps, "gibbs": lda.gibbs_steps},
    latent_model=lda.latent_model,
    summarise=lambda x: partial(lda.overview, words=x.sum(0).topk(min(x.shape[1], 100)).indices),
    figures=figures("lda"),
    default_options={
        "svi": {"num_steps": 1500},
        "cavi": {"num_restarts": 2},
        **{sampler: {"num_draws": 50, "num_warmup": 1000} for sampler in ("gibbs", "nuts", "hmc", "metropolis")},
    },
    default_guide="mean_field_by_hand",
    num_draws=200,
)
