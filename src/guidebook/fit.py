"""One call from names to a fit: what the command line does, without its words."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from guidebook import catalog
from guidebook.catalog import Row
from guidebook.datasets import Dataset, load
from guidebook.inference import Posterior, em, nuts, svi

DRAWS_OF_A_GUIDE = 10_000  # with a tenth of that a perfect fit looks shifted by noise alone


class Problem(NamedTuple):
    """A model with its options bound and the data to fit it to.

    Attributes
    ----------
    row : Row
        The model's row in the catalogue.
    data : Dataset
    args : tuple of Tensor
        What the model takes: ``(x,)`` or ``(x, y)``.
    options : dict
        Every option's value, as `guidebook.catalog.parse_options` returns them.
    model : callable
        The Pyro function with its options in place.
    """

    row: Row
    data: Dataset
    args: tuple[Tensor, ...]
    options: dict[str, Any]
    model: Callable


def problem(model: str, data: str | None = None, settings: list[str] | None = None) -> Problem:
    """Look up a model, read its options and load its data; ValueError or OSError with one sentence if that fails."""
    row = catalog.row(model)
    options = catalog.parse_options(row, settings or [])
    dataset = load(
        data or row.data,
        target=options["target"],
        supervised=row.supervised,
        standardize=options["standardize"],
    )
    components = options.get("num_components")
    if components is not None and components > len(dataset.x):
        raise ValueError(f"num_components={components} is more than the {len(dataset.x)} rows of {dataset.name}")
    args = (dataset.x,) if dataset.y is None else (dataset.x, dataset.y)
    bound = catalog.bound_model(row, options)
    if row.prior is not None and options["batch_size"] is not None:
        bound = partial(bound, prior=row.prior(dataset.x, components))
    return Problem(row, dataset, args, options, bound)


def fit(
    task: Problem,
    method: str,
    guide: str | None,
    *,
    steps: int | None = None,
    draws: int | None = None,
    warmup: int | None = None,
    chains: int | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> Posterior:
    """Fit a problem by a method, and a guide if the method is svi; what is None takes the method's own default."""
    own = {name: task.options[name] for name in catalog.METHODS[method]}
    if method == "svi":
        assert guide is not None
        return svi(
            task.model,
            catalog.bound_guide(task.row, guide, task.options),
            *task.args,
            **_given(num_steps=steps),
            **own,
            num_draws=DRAWS_OF_A_GUIDE,
            seed=seed,
            device=device,
            progress=progress,
        )
    if method == "nuts":
        counts = _given(num_draws=draws, num_warmup=warmup, num_chains=chains)
        return nuts(task.model, *task.args, **counts, **own, seed=seed, device=device, progress=progress)
    make = task.row.steps[method]
    updates = make(**{name: task.options[name] for name in task.row.options})
    return em(updates, *task.args, **_given(num_steps=steps), **own, seed=seed)


def _given(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}
