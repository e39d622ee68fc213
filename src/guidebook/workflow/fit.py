"""One call from names to a fit: what the command line does, without its words."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from guidebook.catalog import METHODS, OPTIMISERS, Row
from guidebook.datasets import Dataset, load
from guidebook.inference import (
    Posterior,
    cavi,
    closed_form,
    em,
    gibbs,
    hmc,
    kl_warm_up,
    mcem,
    metropolis,
    nuts,
    svi,
)
from guidebook.inference.optim.losses import named_loss
from guidebook.workflow import resolve as cells

SWEEPS_A_DRAW = 5  # of Gibbs, whose sweeps are cheap and resemble one another
ROWS_A_STEP = 128  # of guides that compute the rows' own sites from the rows


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
        Every option's value, as `guidebook.workflow.resolve.parse_options` returns them.
    model : callable
        The Pyro function with its options in place.
    latent_model : callable or None
        The one with the rows' latent variables explicit, likewise.
    identify : callable
        ``(draws, anchor=None) -> quantities`` to compare.
    """

    row: Row
    data: Dataset
    args: tuple[Tensor, ...]
    options: dict[str, Any]
    model: Callable
    latent_model: Callable | None
    identify: Callable


def problem(
    model: str, data: str | None = None, settings: list[str] | None = None, used: Iterable[str | None] = ()
) -> Problem:
    """Look up a model, read its options and load its data; ValueError or OSError with one sentence if that fails.

    ``used`` names the methods and guides that it is for: the row may have smaller default data for some.
    """
    row = cells.row(model)
    small = row.small if row.small is not None and data is None and set(row.small.cells) & {*used} else None
    options = cells.parse_options(row, settings or [], small.options if small else {})
    dataset = load(
        data or (small or row).data,
        target=options["target"],
        supervised=row.supervised,
        standardize=options["standardize"],
        vocabulary=options["vocabulary"],
    )
    if row.check is not None:
        row.check(dataset.x)
    if row.prepare is not None:
        dataset = dataset._replace(x=row.prepare(dataset.x, options))
    components = options.get("num_components")
    if components is not None and components > len(dataset.x):
        raise ValueError(f"num_components={components} is more than the {len(dataset.x)} rows of {dataset.name}")
    args = (dataset.x,) if dataset.y is None else (dataset.x, dataset.y)
    fixed = {}
    if row.prior is not None and options["batch_size"] is not None:
        fixed["prior"] = row.prior(dataset.x, options)
    bound = [
        partial(cells.bound(function, row, options), **fixed) if function is not None else None
        for function in (row.model, row.latent_model)
    ]
    identify = row.overview(dataset.x) if row.overview is not None else row.identify
    return Problem(row, dataset, args, options, bound[0], bound[1], identify)  # pyright: ignore[reportArgumentType]


def fit(task: Problem, method: str, guide: str | None, **options: Any) -> Posterior:
    """Fit a problem by a method, and a guide if the method is svi; `run` says what ``options`` may be."""
    posterior = run(task, method, guide, **options)
    if task.row.derive is None:
        return posterior
    derived = {name: value[None, None] for name, value in task.row.derive(posterior.params).items()}
    return replace(posterior, draws={**posterior.draws, **derived})


def run(
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
    """Fit; what is None takes the row's default, or else the method's own."""
    preset = task.row.counts if task.args[0].shape == task.data.x.shape and task.data.name == task.row.data else {}
    if method == "svi":
        steps = steps or preset.get("steps")
    draws, warmup = draws or preset.get("draws"), warmup or preset.get("warmup")
    own: dict[str, Any] = {k: v for k, v in preset.items() if k in METHODS[method]}
    own |= _given(**{name: task.options[name] for name in METHODS[method]})
    counts = _given(num_draws=draws, num_warmup=warmup, num_chains=chains)
    run = {"seed": seed, "device": device, "progress": progress}
    if method == "svi":
        assert guide is not None
        is_latent = guide in task.row.latent_guides
        loss = _loss(task.row.losses.get(guide, "trace"), own)
        if "optim" in own:
            own["optim"] = OPTIMISERS[own["optim"]]
        if guide in task.row.amortised and len(task.args[0]) > ROWS_A_STEP:
            own.setdefault("batch_size", ROWS_A_STEP)
        model = task.latent_model if is_latent else task.model
        assert model is not None
        bound = cells.bound_guide(task.row, guide, task.options)
        own |= _given(num_steps=steps)
        return svi(model, bound, *task.args, **own, loss=loss, num_draws=task.row.num_draws, local_draws=False, **run)
    if method in ("nuts", "hmc", "metropolis"):
        sample = {"nuts": nuts, "hmc": hmc, "metropolis": metropolis}[method]
        return sample(task.model, *task.args, **counts, **own, **run)
    if method == "mcem":
        assert task.latent_model is not None
        return mcem(task.latent_model, *task.args, **_given(num_steps=steps), **own, **run)

    args = tuple(value.to(device) for value in task.args) if device else task.args
    if method == "closed_form":
        assert task.row.closed_form is not None
        return closed_form(cells.bound(task.row.closed_form, task.row, task.options), *args, seed=seed)
    make = cells.bound(task.row.steps[method], task.row, task.options)
    if method == "em":
        return em(make(map=own.pop("map")), *args, **_given(num_steps=steps), **own, seed=seed)
    if method == "cavi":
        return cavi(make(), *args, **_given(num_steps=steps), **own, num_draws=task.row.num_draws, seed=seed)
    own = {"thin": SWEEPS_A_DRAW} | own
    return gibbs(make(), *args, **counts, **own, seed=seed, progress=progress)


def _loss(default: str, own: dict[str, Any]) -> Any:
    """What the options of svi, which are taken out of ``own``, say of the loss."""
    name, particles, alpha = own.pop("loss", default), own.pop("num_particles", 1), own.pop("renyi_order", None)
    if warm_up := own.pop("warm_up", None):
        if name != "trace":
            raise ValueError(f"warm_up goes with the loss trace, and loss is {name}")
        return kl_warm_up(warm_up, num_particles=particles)
    # One plate: that over the rows.
    return named_loss(name, particles, **_given(alpha=alpha), vectorize=True, max_plate_nesting=1)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
