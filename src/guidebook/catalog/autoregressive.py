"""Row of the autoregressive model."""

from typing import Any

from torch import Tensor

from guidebook import guides
from guidebook.catalog import findings, outcomes
from guidebook.catalog.entry import NO_CLOSED_FORM, Choosing, Data, Guide, Row, Unavailable, figures
from guidebook.catalog.methods import FAMILIES
from guidebook.catalog.pixels import black_and_white
from guidebook.inference import Posterior
from guidebook.models import autoregressive
from guidebook.workflow.options import Option

_NO_LATENT = Unavailable("it has no latent variable, so there is none to take expectations over", "map")
_NO_SITES = Unavailable("its weights are parameters, penalised by their prior, and no site is left to draw", "map")


def _pixels(x: Tensor, options: dict[str, Any], top: float) -> Tensor:
    network, hidden, order = (options[name] for name in ("network", "hidden", "order"))
    autoregressive.starts(None, network, hidden, order, x.shape[1])  # refuses what does not go together
    return black_and_white("autoregressive", x, options["binarise"], top)


def _held_out(posterior: Posterior, x: Tensor, options: dict[str, Any], seed: int) -> tuple[Tensor, None]:
    return autoregressive.log_likelihood(posterior.params, x.to(posterior.params["network.logits.bias"])), None


AUTOREGRESSIVE = Row(
    name="autoregressive",
    title="autoregressive network",
    model=autoregressive.model,
    data=Data("digits", preprocess=_pixels),
    options={
        "network": Option(str, "made", "masked layers or masked convolutions", choices=("made", "pixelcnn")),
        "hidden": Option(int, None, "units per hidden layer, for pixelcnn channels", 1),
        "order": Option(str, "raster", "order of the pixels", choices=("raster", "columns", "random")),
        "prior_scale": Option(float, 0.5, "prior standard deviation of the weights", 0, False),
        "binarise": Option(str, "threshold", "how grey becomes 0 or 1", choices=("threshold", "fixed")),
    },
    guides={
        "map_point": FAMILIES["map_point"]._replace(minibatch=True),
        "maximum_likelihood": Guide(guides.autoregressive.maximum_likelihood, minibatch=True),
    },
    identify=lambda draws, anchor=None: {"x_mean": draws["x_mean"]},
    log_likelihood=autoregressive.log_likelihood,
    default_methods=("map", "svi:maximum_likelihood"),
    unavailable={
        **dict.fromkeys(("em", "cavi", "gibbs", "mcem"), _NO_LATENT),
        "closed_form": Unavailable(NO_CLOSED_FORM, "svi"),
        **dict.fromkeys(("dadvi", "pathfinder", "nuts", "hmc", "metropolis", "laplace"), _NO_SITES),
        **dict.fromkeys(("mean_field", "low_rank", "full_rank", "flow"), _NO_SITES._replace(nearest="map_point")),
    },
    steps={},
    ladder=("map",),
    otherwise="guidebook choose autoregressive, by the likelihood of held-out rows; its weights are points",
    choosing=Choosing(
        "svi:map_point",
        folds=3,
        held_out=_held_out,
        methods=("svi:map_point", "svi:maximum_likelihood"),
        incomparable={"binarise": "it changes the data"},
    ),
    add_quantities=autoregressive.identify,
    figures=figures("autoregressive"),
    per_row=outcomes.pixel_likelihoods,
    findings=findings.nats_per_row,
    coords=lambda columns, x, options: {"x_mean": [columns]},
    default_options={
        "svi": {"num_steps": 3_000},  # networks settle late: the automatic stop takes far more
        "online": {"num_epochs": 100},
    },
    default_guide="map_point",
    num_draws=200,
)
