"""Calibration of a method on data that a model of the catalogue, or a user's own, simulates."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from torch import Tensor

from guidebook.catalog import METHODS
from guidebook.inference import Calibration, Posterior
from guidebook.inference import calibrate as calibrate_any
from guidebook.workflow.cost import numbers_per_draw
from guidebook.workflow.fit import Task, fit
from guidebook.workflow.output import facts as facts_of
from guidebook.workflow.resolve import guide_of

SAMPLER_DRAWS = 250  # per chain, if no number is given: ranks need no more, and fits with too few are run again
RANKED_DRAWS = 1000  # of a fitted distribution


def with_fixed_prior(task: Task, num_rows: int | None = None) -> Task:
    """Return a task with fewer rows of its data, evenly spaced, and the prior that the model works out from them."""
    row, args = task.row, task.args
    if num_rows is not None:
        if not args or num_rows > len(args[0]):
            raise ValueError(f"calibrate: --rows {num_rows} is more than the data have")
        size = len(args[0])
        places = [place * size // num_rows for place in range(num_rows)]
        args = tuple(value[places] if value.dim() and len(value) == size else value for value in args)
    shared = row.shared(task.options, *args) if row.shared else {}
    drawing = row.to_draw(*args) if row.to_draw else {}
    model = partial(task.model, **shared, **drawing) if shared or drawing else task.model
    latent = partial(task.latent_model, **shared) if shared and task.latent_model else task.latent_model
    return task._replace(args=args, shared=shared, model=model, latent_model=latent)


def calibrate(
    task: Task,
    method: str,
    guide: str | None,
    *,
    counts: Mapping[str, Any],
    exchangeable: bool = False,
    seed: int = 0,
    device: str | None = None,
    **options: Any,
) -> Calibration:
    """Calibrate a method on a task of `with_fixed_prior`; ``options`` are further ones of `inference.calibrate`.

    Raises
    ------
    ValueError
        If the method gives points, or works its prior out from each data set anew.
    """
    row, how = task.row, METHODS[method]
    if how.takes == "latent_model" or method == "em" or (method == "closed_form" and not row.is_exact):
        raise ValueError(f"calibrate: {method} gives a point for {row.name}, among whose draws nothing can be ranked")
    if how.takes in ("steps", "solution"):
        taken = signature(row.steps[method]).parameters
        if missing := [name for name in task.shared if name not in taken]:
            raise ValueError(f"calibrate: {method} of {row.name} takes its {missing[0]} from each data set anew")
    is_latent = guide is not None and how.takes == "guide" and guide_of(row, guide).latent
    given: dict[str, Any] = dict(counts)
    if given.get("draws") is None:
        given["draws"] = SAMPLER_DRAWS if "num_chains" in how.counts else RANKED_DRAWS

    def run(model: Callable | None, *data: Tensor, seed: int, num_draws: int | None = None) -> Posterior:
        subject = task._replace(args=data) if model is None else task._replace(args=data, model=model)
        more: dict[str, Any] = given | ({"draws": num_draws} if num_draws else {})
        return fit(subject, method, guide, **more, seed=seed, device=device)

    def with_model(model: Callable, *data: Tensor, seed: int, num_draws: int | None = None) -> Posterior:
        return run(model, *data, seed=seed, num_draws=num_draws)

    def without_model(*data: Tensor, seed: int, num_draws: int | None = None) -> Posterior:
        return run(None, *data, seed=seed, num_draws=num_draws)

    takes_model = how.takes in ("model", "guide") and not is_latent
    identify: Any = components_of(task) if row.exchangeable else row.identify
    return calibrate_any(
        with_model if takes_model else without_model,
        task.model,
        *task.args,
        identify="exchangeable" if exchangeable else identify,
        seed=seed,
        **options,
    )


def components_of(task: Task) -> dict[str, int]:
    """Return the sites of a model with exchangeable components, and their dimensions."""
    sites, dims = numbers_per_draw(task.model, task.args), task.row.exchangeable
    return {} if dims is None else {site: dim for site, dim in dims(task.options).items() if site in sites}


def calibration_json(task: Task, found: Calibration, seed: int) -> dict[str, Any]:
    """Return what ``guidebook calibrate --json`` prints."""
    return {
        "model": task.row.name,
        "data": task.data.name,
        "method": found.method,
        "seed": seed,
        "seconds": found.seconds,
        "judgement": found.judgement,
        "sentence": found.sentence,
        "num_simulations": found.num_simulations,
        "num_draws": found.num_draws,
        "failed": found.failed,
        "few": found.few,
        "quantities": found.quantities,
        "ranks": {name: ranks.tolist() for name, ranks in found.ranks.items()},
    }


def facts(task: Task, found: Calibration) -> list[tuple[str, str]]:
    """Return terms and words for the head of a page."""
    model, _ = facts_of(task)
    shapes = ", ".join(" × ".join(map(str, value.shape)) for value in task.args)
    return [
        model,
        ("Data", f"simulated: as many as those of {task.data.name} ({shapes})"),
        ("Method", found.method),
        ("Simulations", f"{found.num_simulations:,}, each true value ranked among {found.num_draws} draws"),
    ]
