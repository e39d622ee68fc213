"""Row of the topic model."""

from functools import partial
from typing import Any

from torch import Tensor

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import NO_CLOSED_FORM, Choosing, Data, Guide, Row, SmallData, Unavailable, figures
from guidebook.catalog.methods import FAMILIES
from guidebook.inference import Posterior
from guidebook.models import lda
from guidebook.workflow.options import Option

_NO_MODE = Unavailable("with concentrations below one the density has no mode", "cavi")
COMPARED = 100  # words, the most frequent ones
_FAMILIES = {name: family for name, family in FAMILIES.items() if name != "map_point"}
_NUM_SCORED = 20  # draws of the topics that held-out documents are scored with: their weights are inferred at each


def _held_out(posterior: Posterior, x: Tensor, options: dict[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    words = posterior.draws["topic_words"].flatten(0, 1)
    words = words[:: max(1, len(words) // _NUM_SCORED)].double()
    return lda.completion(words, x, alpha=options["alpha"], seed=seed)


def _frequent(x: Tensor) -> Tensor:
    """Return the columns of the most frequent words, the most frequent first."""
    return x.sum(0).topk(min(x.shape[1], COMPARED)).indices


LDA = Row(
    name="lda",
    title="latent Dirichlet allocation",
    model=lda.model,
    data=Data(
        "reuters",
        validate=lda.check_counts,
        small=SmallData(
            ("dadvi", "pathfinder", "nuts", "hmc", "metropolis", *_FAMILIES),
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
    steps={"cavi": lda.cavi_steps, "gibbs": lda.gibbs_steps, "online": lda.online_steps},
    choosing=Choosing("cavi", folds=5, held_out=_held_out),
    latent_model=lda.latent_model,
    to_draw=lambda x: {"totals": x.sum(1)},
    exchangeable=lambda options: {"topic_words": 0, "topic_weights": 1},
    summarise=lambda x: partial(lda.overview, words=_frequent(x)),
    coords=lambda columns, x, options: {"topic_words": [[columns[int(word)] for word in _frequent(x)]]},
    figures=figures("lda"),
    per_row=outcomes.topics,
    findings=findings.topic_words,
    default_options={
        "online": {"batch_size": 50, "num_epochs": 5},
        "svi": {"num_steps": 1500},
        "cavi": {"num_restarts": 2},
        **{sampler: {"num_draws": 50, "num_warmup": 1000} for sampler in ("gibbs", "nuts", "hmc", "metropolis")},
    },
    default_guide="mean_field_by_hand",
    ladder=("gibbs",),
    otherwise="guidebook choose lda, by held-out perplexity; chains settle on different topics, each as likely",
    num_draws=200,
)
