"""What a row of the catalogue says of a model."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from guidebook.workflow.options import Option

NO_CLOSED_FORM = "the likelihood has no maximum in closed form"


class Empty(NamedTuple):
    """An empty cell: why, and the nearest cell that is not."""

    reason: str
    nearest: str


class Small(NamedTuple):
    """Default data of some cells of a row.

    Attributes
    ----------
    cells : tuple of str
        Methods and guides.
    data : str
    options : dict
        Defaults that go with them.
    """

    cells: tuple[str, ...]
    data: str
    options: dict[str, Any]


class Row(NamedTuple):
    """A model of the collection.

    Attributes
    ----------
    model : callable
        The Pyro function; options are bound with ``functools.partial``.
    data : str
        Default data set.
    supervised : bool
        Whether the data are ``(x, y)`` rather than ``(x,)``.
    standardize : bool
        Whether features are z-scored unless told otherwise.
    options : dict of Option
        The model's own.
    guides : dict
        Name → guide, or guide family; hand-written guides of a model with options take the same options.
    identify : callable
        ``(draws, anchor=None) -> quantities`` free of symmetries.
    log_likelihood : callable
        ``(sites, *data) -> (..., n)``, in nats.
    compared : tuple of str
        What ``guidebook compare`` fits where ``--methods`` is left out.
    empty : dict of Empty
        By method or guide.
    steps : dict
        Name of a method that iterates steps → function that makes them from the model's options.
    latent_guides : dict
        Name → hand-written guide of ``latent_model``.
    latent_model : callable or None
        The Pyro function with the rows' latent variables explicit; for ``latent_guides`` and Monte Carlo EM.
    losses : dict of str
        Guide → name of the loss that it is trained by unless told otherwise, where that is not "trace".
    closed_form : callable or None
        ``(x, …) -> params``: maximum likelihood without iteration.
    prior : callable or None
        ``(x, options) -> prior``, where the default prior follows the data: minibatches need it fixed.
    check : callable or None
        ``(x)``: raises ValueError for data that the model cannot have made.
    prepare : callable or None
        ``(x, options) -> x``: brings data to what the model takes.
    derive : callable or None
        ``(params) -> quantities``, where the model's own sites mean nothing from one fit to the next: joined to the
        draws of every fit, for ``identify``.
    overview : callable or None
        ``(x) -> identify``: what to compare instead of ``identify``'s quantities on data of this size.
    small : Small or None
        Data and options of those cells for which the default data are too large.
    counts : dict of int
        ``steps`` of svi, ``draws`` and ``warmup`` of samplers, and options of methods, on the default data, where the
        methods' own do not suit.
    default_guide : str
        What svi takes where none is named.
    num_draws : int
        From a fitted guide; with a tenth of ten thousand a perfect fit looks shifted by noise alone, but where every
        row has a site of its own that many are dear.
    amortised : tuple of str
        Guides that compute the rows' own sites from the rows: those are fitted in minibatches unless told otherwise.
    """

    name: str
    title: str
    model: Callable
    data: str
    supervised: bool
    standardize: bool
    options: dict[str, Option]
    guides: dict[str, Callable]
    identify: Callable
    log_likelihood: Callable
    compared: tuple[str, ...]
    empty: dict[str, Empty]
    steps: dict[str, Callable]
    latent_guides: dict[str, Callable]
    latent_model: Callable | None = None
    closed_form: Callable | None = None
    prior: Callable | None = None
    check: Callable | None = None
    prepare: Callable | None = None
    derive: Callable | None = None
    overview: Callable | None = None
    small: Small | None = None
    losses: Mapping[str, str] = MappingProxyType({})
    counts: Mapping[str, int] = MappingProxyType({})
    default_guide: str = "mean_field"
    num_draws: int = 10_000
    amortised: tuple[str, ...] = ()
