"""The record of a model in the catalogue, and the records it is put together from."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from guidebook.inference.quantities import Coords
from guidebook.workflow.options import Option
from guidebook.workflow.own.file import OwnFunction

NO_CLOSED_FORM = "the likelihood has no maximum in closed form"


class Unavailable(NamedTuple):
    """Why a model lacks a method or a guide, and the nearest one it has."""

    reason: str
    nearest: str


class SmallData(NamedTuple):
    """Default data of the methods and guides in ``cells``, with the options that go with them."""

    cells: tuple[str, ...]
    data: str
    options: dict[str, Any]


class Data(NamedTuple):
    """The data of a model."""

    name: str  # of the default data set
    supervised: bool = False  # whether the model takes (x, y) rather than (x,)
    continuous: bool = False  # whether y is any number rather than a label, 0 or 1
    standardize: bool = False  # whether features are z-scored by default
    validate: Callable | None = None  # (x, columns): raises ValueError for data that the model cannot have generated
    preprocess: Callable | None = None  # (x, options, top) -> x: into what the model takes; top: largest value fitted
    impute: Callable | None = None  # (x, options) -> x with each NaN replaced by its mean under the model
    complete: Callable | None = None  # (sites, x) -> likewise, at one draw of the sites
    small: SmallData | None = None  # for methods and guides for which the default data are too large


class Guide(NamedTuple):
    """A guide of a model."""

    function: Callable  # the guide or guide family; a hand-written guide takes those of the model's options it names
    latent: bool = False  # whether it guides latent_model rather than model
    loss: str = "trace"  # by default
    minibatch: bool = False  # whether it computes each row's latent variables from the row: minibatches by default


class Choosing(NamedTuple):
    """How ``guidebook choose`` fits a model at each value of an option, and what it judges the fits by."""

    method: str  # such as "gibbs" or "svi:encoder"
    folds: int | None = None  # of cross-validation by default; None: PSIS-LOO from the draws
    # (posterior, x, options, seed) -> log densities (n,) in nats of rows that were not fitted, and tokens per row or
    # None: where they are not the mean of the likelihood over draws.
    held_out: Callable | None = None
    # (x, options, seed) -> further criteria by name (see `plots.choice.TITLES`), of one value of the option.
    criteria: Callable | None = None
    methods: tuple[str, ...] = ()  # those whose fits can be judged; none: all
    # Option -> why densities at its values cannot be compared.
    incomparable: Mapping[str, str] = MappingProxyType({})


class Row(NamedTuple):
    """A model of the collection, or a user's own."""

    name: str
    title: str
    model: Callable  # the Pyro function; options are bound with functools.partial
    data: Data
    options: dict[str, Option]  # the model's keyword options
    guides: dict[str, Guide]
    identify: Callable | None  # (draws, anchor=None) -> quantities without the model's symmetries; None: the sites
    log_likelihood: Callable | None  # (sites, *data) -> (..., n), in nats; None for a user's own model
    default_methods: tuple[str, ...]  # what guidebook compare fits by default, the reference first
    unavailable: dict[str, Unavailable]  # by method or guide
    # Method -> function of the model's options that makes its steps; for "closed_form", the solution itself: estimates,
    # or an ExactPosterior.
    steps: dict[str, Callable]
    choosing: Choosing
    is_exact: bool = False  # whether closed_form gives the posterior rather than estimates
    latent_model: Callable | None = None  # the Pyro function with each row's latent variables explicit
    # (options, *data) -> keyword arguments of the model that it works out from all rows: minibatches must share them.
    shared: Callable[..., dict[str, Any]] | None = None
    # options -> methods and guides that these values of the options leave without an answer, besides `unavailable`.
    excluded: Callable[[Mapping[str, Any]], dict[str, Unavailable]] | None = None
    # (*data) -> keyword arguments of the model without which it cannot draw data like these.
    to_draw: Callable[..., dict[str, Any]] | None = None
    # (options) -> sites that may have exchangeable components, and their dimension, the one that orders them first.
    exchangeable: Callable[[Mapping[str, Any]], dict[str, int]] | None = None
    # (params) -> quantities added to the draws of every fit, if the sites mean nothing from one fit to the next.
    add_quantities: Callable | None = None
    # (x) -> identify: replaces identify where it would give too many quantities for data of this size.
    summarise: Callable | None = None
    # (comparison, x, columns) -> list of Section: what a report shows of this model alone; x and columns may be None.
    figures: Callable | None = None
    # (columns, x, options) -> coords of `compare`: identified sites whose last dimensions run over the data's columns.
    coords: Callable[[Sequence[str], Tensor, Mapping[str, Any]], Coords] | None = None
    # (posterior, dataset, options) -> columns of rows.csv by name, (n,) each: what the fit says of rows, new or old.
    per_row: Callable[[Any, Any, Mapping[str, Any]], dict[str, Any]] | None = None
    # (posterior, dataset, options) -> sentences: the few figures that matter.
    findings: Callable[[Any, Any, Mapping[str, Any]], list[str]] | None = None
    # Method -> keyword arguments, on the default data, where the method's own defaults do not suit.
    default_options: Mapping[str, dict[str, Any]] = MappingProxyType({})
    default_method: str = "svi"
    default_guide: str = "mean_field"
    # What guidebook fit tries, cheapest first; none: what `guidebook.inference.fit` does.
    ladder: tuple[str, ...] = ("dadvi", "nuts")
    otherwise: str | None = None  # what to do if nothing of that is good; None: what the last judgement says
    # Draws from a fitted guide. 1,000 are too noisy to call a perfect fit good; use fewer only for sites per row.
    num_draws: int = 10_000
    own: OwnFunction | None = None  # where a user's own model is


def figures(module: str) -> Callable[..., Any]:
    """Return ``sections`` of a module in `guidebook.plots.models`, imported when called: matplotlib is slow to load."""

    def sections(*arguments: Any) -> Any:
        return import_module(f"guidebook.plots.models.{module}").sections(*arguments)

    return sections
