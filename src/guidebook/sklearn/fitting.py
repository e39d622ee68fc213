"""What all estimators share: from constructor arguments to a fit by the catalogue, and what is kept of it."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data
from torch import Tensor

from guidebook.catalog import METHODS, ROWS, Row
from guidebook.datasets import Dataset
from guidebook.inference import Posterior
from guidebook.workflow.fit import Task, fit
from guidebook.workflow.resolve import bind, parse_options, split_method, with_options

COUNTS = {"num_draws": "draws", "num_warmup": "warmup", "num_chains": "chains"}


def run(
    estimator: Any,
    model: str,
    options: Mapping[str, Any],
    *data: Tensor,
    steps: Mapping[str, Callable] = MappingProxyType({}),
    defaults: Mapping[str, Any] = MappingProxyType({}),
    weights: Tensor | None = None,
) -> Posterior:
    """Fit a model of the catalogue by ``estimator.method``, and set the attributes that all estimators have.

    Parameters
    ----------
    estimator : BaseEstimator
        With ``method``, ``tol``, ``max_iter``, ``n_init``, ``options`` and ``random_state``.
    model : str
        Name of its row.
    options : mapping
        The model's options.
    *data : Tensor
        What the model takes: rows, and the target of a regression.
    steps : mapping, optional
        Steps by method, in place of the row's own.
    defaults : mapping, optional
        Options for the methods that have them, where the methods' own defaults do not suit.
    weights : Tensor, shape (n,), optional
        Of the rows, for methods whose steps take them as their last argument.

    Returns
    -------
    Posterior
        Also ``estimator.posterior_``; ``converged_``, ``n_iter_`` and ``lower_bound_`` come from it.

    Raises
    ------
    ValueError
        For an option out of range, data that the model cannot have, or a fit that fails; the sentence begins with the
        estimator's name.
    """
    what = type(estimator).__name__
    with named(what):
        row, method, guide, values, counts = _resolve(estimator, ROWS[model], options, defaults)
        row = row._replace(steps={**row.steps, **steps})
        x, y = data[0], data[1] if row.data.supervised else None
        dataset = Dataset("X", x, y, tuple(f"x{k}" for k in range(x.shape[1])), None, standardized=False)
        bound, latent = (f and bind(f, values, row.options) for f in (row.model, row.latent_model))
        assert bound is not None
        args = data if weights is None else (*data, weights)
        task = Task(row, dataset, args, values, bound, latent, identify=None, coords={})
        posterior = fit(task, method, guide, seed=seed_of(estimator.random_state), **counts)
    rows = x.shape[0] if weights is None else float(weights.sum())
    estimator.posterior_ = posterior
    estimator.converged_ = posterior.info.converged
    estimator.n_iter_ = _num_iterations(posterior)
    estimator.lower_bound_ = _bound(posterior) / rows
    if method in ("em", "cavi") and not posterior.info.converged:
        warnings.warn(f"{what}: {posterior.info.message}", ConvergenceWarning, stacklevel=3)
    return posterior


def method_of(estimator: Any) -> str:
    """Return the method's name, without that of a guide."""
    return str(estimator.method).partition(":")[0]


def only_by(estimator: Any, methods: tuple[str, ...], what: str) -> None:
    """Raise ValueError unless the method is one of those that can take ``what``."""
    if method_of(estimator) not in methods:
        able = " or ".join(f"method={name!r}" for name in methods)
        raise ValueError(f"{type(estimator).__name__}: {what} {able}, and method is {estimator.method!r}")


def weights_of(estimator: Any, sample_weight: Any, num_rows: int, methods: tuple[str, ...]) -> Tensor | None:
    """Return the rows' weights, one number for all or one for each; ValueError unless one of ``methods`` takes them."""
    if sample_weight is None:
        return None
    only_by(estimator, methods, "sample_weight needs")
    if isinstance(sample_weight, Real):
        return torch.full((num_rows,), float(sample_weight), dtype=torch.float64)
    return torch.from_numpy(np.array(sample_weight, dtype=np.float64))


def validated(estimator: Any, *data: Any, reset: bool = True, **options: Any) -> Any:
    """Return data as float64 arrays, checked by scikit-learn; with ``reset`` their columns are noted for later."""
    return validate_data(estimator, *data, reset=reset, dtype=np.float64, **options)


def validated_with_gaps(estimator: Any, X: Any, *, reset: bool) -> np.ndarray:
    """Do the same for rows that may have NaN if the method is EM."""
    x = validated(estimator, X, reset=reset, ensure_all_finite="allow-nan", ensure_min_samples=2 if reset else 1)
    if np.isnan(x).any():
        only_by(estimator, ("em",), "missing values (NaN) need")
    return x


@contextmanager
def named(what: str) -> Iterator[None]:
    """Have the sentence of an error begin with the estimator's name; a fit that fails is a ValueError, as there."""
    try:
        yield
    except (ValueError, ArithmeticError) as error:
        sentence = str(error).partition("\n")[0]  # below it Pyro prints the shapes of the sites
        raise ValueError(f"{what}: {sentence}") from error


def check_counts(what: str, **counts: Any) -> None:
    """Raise ValueError unless each is None or a whole number from one up."""
    for name, value in counts.items():
        if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{what}: {name} must be a whole number from 1 up, got {value!r}")


def seed_of(random_state: Any) -> int:
    """Return a whole number as it stands, so that results are those of a method's ``seed``; else draw one."""
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def as_tensor(values: np.ndarray) -> Tensor:
    """Return an array as a tensor; memory that may not be written to is copied."""
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def mean_over_draws(draws: Mapping[str, Tensor], site: str) -> np.ndarray:
    """Return the mean of a site over all draws, (chain, draw, *site)."""
    return draws[site].double().mean((0, 1)).numpy()


def _resolve(
    estimator: Any, row: Row, options: Mapping[str, Any], defaults: Mapping[str, Any]
) -> tuple[Row, str, str | None, dict, dict]:
    """Return row, method, guide, the values of all options, and keyword arguments of `fit`."""
    further = dict(estimator.options or {})
    counts = {keyword: further.pop(name) for name, keyword in COUNTS.items() if name in further}
    values = parse_options(row, [f"{name}={_text(value)}" for name, value in further.items()]) | dict(options)
    row = with_options(row, values)
    method, guide = split_method(row, estimator.method)
    how = METHODS[method]
    values |= {option: value for option, value in defaults.items() if option in how.options}
    for argument, option in {"tol": "tol", "n_init": "num_restarts"}.items():
        if (value := getattr(estimator, argument)) is not None:
            if option not in how.options:
                raise ValueError(f"{method} takes no {argument}: leave it out")
            values[option] = value
    if estimator.max_iter is not None:
        counts["steps"] = estimator.max_iter
    known = {"steps": "num_steps"} | {keyword: name for name, keyword in COUNTS.items()}
    for keyword in counts:
        if known[keyword] not in how.counts:
            raise ValueError(f"{method} takes no {'max_iter' if keyword == 'steps' else known[keyword]}: leave it out")
    return row, method, guide, values, counts


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _num_iterations(posterior: Posterior) -> int:
    """Return iterations of the best run, or draws per chain."""
    curves = (getattr(posterior.info, name, None) for name in ("objective", "losses", "rounds"))
    lengths = [len(curve) for curve in curves if curve is not None]
    return max(1, lengths[0]) if lengths else next(iter(posterior.draws.values())).shape[1]


def _bound(posterior: Posterior) -> float:
    """Return the log likelihood at an estimate, the log evidence or a bound on it, in nats; nan for samplers."""
    info = posterior.info
    return next((v for v in (info.log_likelihood, info.log_evidence, info.elbo) if v is not None), math.nan)


def at_each(draws: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Yield each of the draws, (draw, *site), as a point."""
    for k in range(len(next(iter(draws.values())))):
        yield {name: value[k] for name, value in draws.items()}
