"""The single table of models, their guides, their methods and, for every empty cell, the reason.

The command line, the contract tests and the README's grid are drawn from it. A new model is a file and a row here.
"""

import difflib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

from guidebook import guides
from guidebook.models import gmm, logistic


class Option(NamedTuple):
    """One setting of a model or a method, as ``--set name=value`` gives it.

    Attributes
    ----------
    kind : type
        int, float, bool or str.
    default : object
        None where the setting may be left out.
    low : float or None
        Least value allowed, itself only if ``closed``.
    choices : tuple of str
        The values allowed, for a str; empty for any.
    """

    kind: type
    default: Any
    help: str
    low: float | None = None
    closed: bool = True
    choices: tuple[str, ...] = ()


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
    steps : dict
        Name of a method that iterates steps → function that makes them from the model's options.
    identify : callable
        ``(draws, anchor=None) -> quantities`` free of symmetries.
    compared : tuple of str
        What ``guidebook compare`` fits where ``--methods`` is left out.
    empty : dict
        Method or guide → why the cell is empty.
    prior : callable or None
        ``(x, num_components) -> prior``, where the default prior follows the data: minibatches need it fixed.
    """

    name: str
    title: str
    model: Callable
    data: str
    supervised: bool
    standardize: bool
    options: dict[str, Option]
    guides: dict[str, Callable]
    steps: dict[str, Callable]
    identify: Callable
    compared: tuple[str, ...]
    empty: dict[str, str]
    prior: Callable | None = None


FAMILIES: dict[str, Callable] = {
    "mean_field": guides.mean_field,
    "low_rank": guides.low_rank,
    "full_rank": guides.full_rank,
    "flow": guides.flow,
    "laplace": guides.laplace,
    "map_point": guides.map_point,
}

METHODS: dict[str, dict[str, Option]] = {
    "svi": {
        "lr": Option(float, 0.01, "step size of the optimiser", 0, False),
        "num_particles": Option(int, 1, "draws of the guide a step", 1),
        "batch_size": Option(int, None, "rows a step; all of them where left out", 1),
    },
    "nuts": {"target_accept": Option(float, 0.8, "acceptance probability that the step size aims at", 0, False)},
    "em": {
        "num_restarts": Option(int, 10, "starts, of which the best wins", 1),
        "tol": Option(float, 1e-6, "distance to the limit, in nats, at which a restart stops", 0, False),
    },
    "cavi": {},
    "gibbs": {},
    "mcem": {},
}
SHORT = {"map": "map_point", "laplace": "laplace"}  # methods that are short for svi with a guide

NOT_YET = "not part of this version"

ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            name="logistic",
            title="Bayesian logistic regression",
            model=logistic.model,
            data="breast_cancer",
            supervised=True,
            standardize=True,
            options={"prior_scale": Option(float, 1.0, "prior standard deviation of every weight", 0, False)},
            guides=FAMILIES
            | {"mean_field_by_hand": guides.logistic.mean_field, "cholesky_by_hand": guides.logistic.cholesky},
            steps={},
            identify=logistic.identify,
            compared=("nuts", "svi:mean_field", "svi:low_rank", "svi:full_rank", "laplace"),
            empty={
                "em": "the posterior of the weights has no closed-form E-step",
                "cavi": NOT_YET,
                "gibbs": NOT_YET,
                "mcem": "there is no latent variable a row to take expectations over",
            },
        ),
        Row(
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
            steps={"em": gmm.em_steps},
            identify=gmm.identify,
            compared=("nuts", "em", "svi:mean_field", "svi:full_rank"),
            empty={"cavi": NOT_YET, "gibbs": NOT_YET, "mcem": "its E-step is exact: use em"},
            prior=gmm.default_prior,
        ),
    )
}


def row(name: str) -> Row:
    """The row of a model; ValueError with the nearest names where there is none."""
    if name not in ROWS:
        raise ValueError(unknown("model", name, ROWS))
    return ROWS[name]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence that says a name is not known, which come nearest, and which there are."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=2)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    return f"unknown {kind} {name!r}: {hint}there is {', '.join(known)}"


def split_method(row: Row, method: str, guide: str | None = None) -> tuple[str, str | None]:
    """Resolve ``svi``, ``svi:full_rank``, ``laplace``, … to a method and, for svi, the name of a guide.

    Raises
    ------
    ValueError
        If there is no such method or guide, or the cell of the catalogue is empty: with the reason.
    """
    name, _, suffix = method.partition(":")
    if suffix and guide:
        raise ValueError(f"give the guide once: --method {method} and --guide {guide} name two")
    guide = suffix or guide
    if name not in METHODS and name not in SHORT:
        raise ValueError(unknown("method", name, [*METHODS, *SHORT]))
    if guide and name != "svi":
        raise ValueError(f"{name} takes no guide (got {guide!r}): guides belong to svi")
    if name in SHORT:
        name, guide = "svi", SHORT[name]
    if name in row.empty:
        raise ValueError(f"{row.name} has no {name}: {row.empty[name]}; it has {', '.join(methods_of(row))}")
    if name != "svi":
        return name, None
    guide = guide or "mean_field"
    if guide in row.empty:
        raise ValueError(f"{row.name} has no guide {guide}: {row.empty[guide]}; it has {', '.join(row.guides)}")
    if guide not in row.guides:
        raise ValueError(unknown(f"guide of {row.name}", guide, row.guides))
    return name, guide


def split_methods(
    row: Row, methods: str | None, reference: str | None
) -> tuple[dict[str, tuple[str, str | None]], str]:
    """Resolve a comma-separated list of methods, and which of them is the reference (NUTS, else the first).

    Raises
    ------
    ValueError
        As `split_method`; for fewer than two methods, one named twice, or a reference that is not among them.
    """
    names = [name.strip() for name in methods.split(",")] if methods else list(row.compared)
    resolved: dict[str, tuple[str, str | None]] = {}
    for name in names:
        method, guide = split_method(row, name)
        label = f"{method}:{guide}" if guide and name not in SHORT else name
        if label in resolved or (method, guide) in resolved.values():
            raise ValueError(f"--methods names {label} twice")
        resolved[label] = method, guide
    if len(resolved) < 2:
        raise ValueError(f"--methods needs two or more methods to compare, got {', '.join(resolved)}")
    if reference is None:
        return resolved, "nuts" if "nuts" in resolved else next(iter(resolved))
    if reference == "svi":
        reference = "svi:mean_field"
    if reference not in resolved:
        raise ValueError(unknown("reference", reference, resolved))
    return resolved, reference


def methods_of(row: Row) -> list[str]:
    """Methods that can fit a model."""
    return [method for method in (*METHODS, *SHORT) if method not in row.empty]


def bound_model(row: Row, options: dict[str, Any]) -> Callable:
    """The model with its options in place."""
    return partial(row.model, **{name: options[name] for name in row.options})


def bound_guide(row: Row, name: str, options: dict[str, Any]) -> Callable:
    """A guide or a family by name; a hand-written guide gets those of the model's options that it takes."""
    guide = row.guides[name]
    if name in FAMILIES:
        return guide
    taken = guide.__code__.co_varnames[: guide.__code__.co_argcount + guide.__code__.co_kwonlyargcount]
    return partial(guide, **{option: options[option] for option in row.options if option in taken})


def parse_options(row: Row, settings: Iterable[str]) -> dict[str, Any]:
    """Read ``option=value`` texts into values, defaults filled in: the model's options, the methods' and the data's.

    Raises
    ------
    ValueError
        For a text without "=", an unknown option, a value of the wrong kind or out of range.
    """
    known = row.options | _DATA_OPTIONS
    if not row.supervised:
        known = {name: option for name, option in known.items() if name != "target"} | {"target": _TARGET_UNUSED}
    for method, options in METHODS.items():
        if method not in row.empty:
            known = known | options
    values = {name: option.default for name, option in known.items()}
    if values["standardize"] is None:
        values["standardize"] = row.standardize
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set takes option=value, got {setting!r}")
        if name not in known:
            raise ValueError(unknown(f"option of {row.name}", name, known))
        values[name] = _parse(name, text, known[name])
    return values


_DATA_OPTIONS = {
    "standardize": Option(bool, None, "whether to z-score the features"),
    "target": Option(str, None, "column of a file that holds the labels"),
}
_TARGET_UNUSED = Option(str, None, "column of a file to leave out, such as labels")


def _parse(name: str, text: str, option: Option) -> Any:
    if option.kind is bool:
        if text not in ("true", "false"):
            raise ValueError(f"{name} must be true or false, got {text!r}")
        return text == "true"
    if option.kind is str:
        if option.choices and text not in option.choices:
            raise ValueError(unknown(name, text, option.choices))
        return text
    try:
        value = option.kind(text)
    except ValueError:
        what = "a whole number" if option.kind is int else "a number"
        raise ValueError(f"{name} must be {what}, got {text!r}") from None
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError(f"{name} must be finite, got {text!r}")
    if option.low is not None and (value < option.low or (value == option.low and not option.closed)):
        raise ValueError(f"{name} must be {'at least' if option.closed else 'more than'} {option.low}, got {text}")
    return value
