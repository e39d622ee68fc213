"""The record of a model in the catalogue, and the records it is put together from."""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from guidebook.workflow.options import Option

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
    """The data of a model.

    Attributes
    ----------
    name : str
        Default data set.
    supervised : bool
        Whether the model takes ``(x, y)`` rather than ``(x,)``.
    standardize : bool
        Whether features are z-scored by default.
    validate : callable or None
        ``(x)``: raises ValueError for data that the model cannot have generated.
    preprocess : callable or None
        ``(x, options) -> x``: turns data into what the model takes.
    small : SmallData or None
        For methods and guides for which the default data are too large.
    """

    name: str
    supervised: bool = False
    standardize: bool = False
    validate: Callable | None = None
    preprocess: Callable | None = None
    small: SmallData | None = None


class Guide(NamedTuple):
    """A guide of a model.

    Attributes
    ----------
    function : callable
        The guide or guide family. A hand-written guide takes those of the model's options that it names.
    latent : bool
        Whether it guides ``latent_model`` rather than ``model``.
    loss : str
        Default loss.
    minibatch : bool
        Whether it computes each row's latent variables from the row, and so is fitted in minibatches by default.
    """

    function: Callable
    latent: bool = False
    loss: str = "trace"
    minibatch: bool = False


class Row(NamedTuple):
    """A model of the collection.

    Attributes
    ----------
    model : callable
        The Pyro function; options are bound with ``functools.partial``.
    options : dict of Option
        The model's keyword options.
    identify : callable
        ``(draws, anchor=None) -> quantities`` without the model's symmetries.
    log_likelihood : callable
        ``(sites, *data) -> (..., n)``, in nats.
    default_methods : tuple of str
        What ``guidebook compare`` fits by default.
    unavailable : dict of Unavailable
        By method or guide.
    steps : dict of callable
        Method → function of the model's options that makes its steps; for "closed_form", the solution itself.
    latent_model : callable or None
        The Pyro function with each row's latent variables explicit.
    prior : callable or None
        ``(x, options) -> prior``, if the default prior depends on the data: minibatches must share it.
    add_quantities : callable or None
        ``(params) -> quantities`` added to the draws of every fit, for ``identify``; for models whose own sites mean
        nothing from one fit to the next.
    summarise : callable or None
        ``(x) -> identify``: replaces ``identify`` where it would give too many quantities for data of this size.
    figures : callable or None
        ``(comparison, x, columns) -> list of Section``: what a report shows of this model alone. ``x`` and ``columns``
        may be None.
    column_sites : tuple of str
        Sites whose last index runs over the columns of the data, perhaps after a bias.
    default_options : dict of dict
        Method → keyword arguments, on the default data, where the method's own defaults do not suit.
    default_guide : str
    num_draws : int
        Draws from a fitted guide. 1,000 are too noisy to call a perfect fit good; use fewer only for models with sites
        per row.
    """

    name: str
    title: str
    model: Callable
    data: Data
    options: dict[str, Option]
    guides: dict[str, Guide]
    identify: Callable
    log_likelihood: Callable
    default_methods: tuple[str, ...]
    unavailable: dict[str, Unavailable]
    steps: dict[str, Callable]
    latent_model: Callable | None = None
    prior: Callable | None = None
    add_quantities: Callable | None = None
    summarise: Callable | None = None
    figures: Callable | None = None
    column_sites: tuple[str, ...] = ()
    default_options: Mapping[str, dict[str, Any]] = MappingProxyType({})
    default_guide: str = "mean_field"
    num_draws: int = 10_000


def figures(module: str) -> Callable[..., Any]:
    """Return ``sections`` of a module in `guidebook.plots.models`, imported when called: matplotlib is slow to load."""

    def sections(*arguments: Any) -> Any:
        return import_module(f"guidebook.plots.models.{module}").sections(*arguments)

    return sections
