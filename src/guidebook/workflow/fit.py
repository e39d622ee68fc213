"""From names to a posterior: what the command line does, without printing."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from guidebook.catalog import METHODS, OPTIMISERS, ROWS, Guide, Row, coords_of
from guidebook.datasets import Dataset, Selection, load
from guidebook.inference import Posterior, Stream, kl_warm_up
from guidebook.inference.optim.losses import named_loss
from guidebook.inference.traces.guides import preferred_options
from guidebook.inference.traces.keywords import with_keywords
from guidebook.inference.traces.prepare import prepare
from guidebook.workflow.cost import affordable_draws, check_memory, numbers_in, numbers_per_draw, time_said
from guidebook.workflow.own.model import OwnTask, own_task
from guidebook.workflow.resolve import bind, find_row, guide_of, parse_options
from guidebook.workflow.threads import threads_for

BATCH_SIZE = 128  # rows per step, for guides that are fitted in minibatches


class Task(NamedTuple):
    """A model with its options bound, and the data to fit it to."""

    row: Row
    data: Dataset
    args: tuple[Tensor, ...]  # the model's arguments: (x,) or (x, y), or what a user's own model has
    options: dict[str, Any]  # every option's value
    model: Callable
    latent_model: Callable | None
    identify: Callable | None  # (draws, anchor=None) -> quantities to compare; None: the sites as they are
    coords: dict[str, list[list[str]]]  # names of their entries, by the data's columns
    source: str | None = None  # what the data were asked for by; None for the row's own
    settings: tuple[str, ...] = ()  # option=value, as given
    own: OwnTask | None = None  # of a user's own model
    shared: Mapping[str, Any] = MappingProxyType({})  # what model and steps take that was worked out from all rows
    stream: Stream | None = None  # of all rows, if they are read in blocks: then the data are examples

    def quantities(self, draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the quantities to compare."""
        return self.identify(draws) if self.identify else dict(draws)


def load_task(
    model: str, data: str | None = None, settings: Iterable[str] | None = None, used: Iterable[str | None] = ()
) -> Task:
    """Look up a model, read its options and load its data.

    ``used`` names the methods and guides to fit: the row may have smaller default data for some.
    """
    settings = tuple(settings or ())
    row = find_row(model, settings)
    if row.own:
        options = parse_options(row, settings)
        return make_own_task(row, data, options, settings)
    small = row.data.small if row.data.small and data is None and {*row.data.small.cells} & {*used} else None
    options = parse_options(row, settings, small.options if small else {})
    selection = Selection.of(options)._replace(imputable=row.data.impute is not None)
    if selection.missing == "impute" and row.data.impute is None:
        able = ", ".join(name for name, known in ROWS.items() if known.data.impute)
        raise ValueError(
            f"{row.name}: cannot impute missing values, as {able} can: --missing drop leaves their rows out"
        )
    dataset = load(
        data or (small.data if small else row.data.name),
        target=options["target"],
        supervised=row.data.supervised,
        continuous=row.data.continuous,
        standardize=options["standardize"],
        vocabulary=options["vocabulary"],
        selection=selection,
    )
    if row.data.impute and dataset.x.isnan().any():
        dataset = dataset._replace(x=row.data.impute(dataset.x, options))
    if row.data.validate:
        row.data.validate(dataset.x, dataset.columns)
    if row.data.preprocess:
        assert dataset.encoding is not None
        dataset = dataset._replace(x=row.data.preprocess(dataset.x, options, dataset.encoding.top))
    return make_task(row, dataset, options)._replace(source=data, settings=settings)


def make_own_task(row: Row, source: str | None, options: dict[str, Any], settings: tuple[str, ...]) -> Task:
    """Read the data of a user's own model, by argument name; ValueError if the two do not go together."""
    own = own_task(row, source, options, [setting.partition("=")[0] for setting in settings])
    return Task(
        row._replace(data=row.data._replace(name=own.data.name)),
        own.data,
        args=own.args,
        options=options,
        model=own.model,
        latent_model=own.model,
        identify=None,
        coords=own.coords,
        source=source,
        settings=settings,
        own=own,
    )


def make_task(row: Row, dataset: Dataset, options: dict[str, Any]) -> Task:
    """Bind options to a model and data; ValueError if the data have too few rows for them."""
    components = options.get("num_components")
    if components is not None and components > len(dataset.x):
        raise ValueError(f"num_components={components} is more than the {len(dataset.x)} rows of {dataset.name}")
    args = (dataset.x,) if dataset.y is None else (dataset.x, dataset.y)
    shared = row.shared(options, *args) if row.shared and options["batch_size"] else {}
    bound = partial(bind(row.model, options, row.options), **shared)
    return Task(
        row,
        dataset,
        args=args,
        options=options,
        model=bound,
        latent_model=partial(bind(row.latent_model, options, row.options), **shared) if row.latent_model else None,
        identify=row.summarise(dataset.x) if row.summarise else row.identify,
        coords=coords_of(bound, dataset.x, dataset.columns),
    )


def fit(
    task: Task,
    method: str,
    guide: str | None = None,
    *,
    steps: int | None = None,
    draws: int | None = None,
    warmup: int | None = None,
    chains: int | None = None,
    init: Posterior | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
    checkpoint: Path | None = None,
    every: float = 30.0,
) -> Posterior:
    """Fit a task by a method and, for svi, a guide; what is None takes the row's default, or else the method's.

    ``init`` is a posterior to start from, for methods that take one; ``checkpoint`` and ``every`` are those of `svi`.
    """
    row, how = task.row, METHODS[method]
    by_steps = how.takes == "steps" or (how.takes == "guide or steps" and guide is None and method in row.steps)
    if how.takes == "guide or steps" and task.stream is None:
        task = _with_shared(task)
    accepted = signature(how.function).parameters
    counts = _given(num_steps=steps, num_draws=draws, num_warmup=warmup, num_chains=chains)
    settings = {
        **({"num_draws": row.num_draws} if method in ("svi", "online", "cavi", "pathfinder", "closed_form") else {}),
        **how.defaults,
        **(row.default_options.get(method, {}) if task.data.name == row.data.name else {}),
        **{name: value for name, value in counts.items() if name in how.counts},
        **_given(**{name: task.options[name] for name in how.options if name not in row.options}),
        **{k: v for k, v in dict(init=init, seed=seed, device=device, progress=progress).items() if k in accepted},
    }
    settings |= {} if checkpoint is None else {"checkpoint": checkpoint, "every": every}
    if "num_draws" in accepted and (method != "closed_form" or row.is_exact):
        settings = _with_memory(task, settings, draws)
    if method == "svi":
        num_rows = len(task.stream or task.args[0]) if task.args else 0
        settings = _svi_settings(settings, guide_of(row, guide or row.default_guide), num_rows, is_own=bool(task.own))
    if method == "online" and "optim" in settings:
        settings["optim"] = OPTIMISERS[settings["optim"]]
    if by_steps:  # which took some of the options themselves
        settings = {k: v for k, v in settings.items() if k not in signature(row.steps[method]).parameters}
    subject = _subject(task, method, guide or row.default_guide, by_steps=by_steps)
    if by_steps:
        settings.pop("device", None)
    args = task.args if "device" in settings or not device else tuple(value.to(device) for value in task.args)
    if task.stream is not None:
        args = (task.stream,)
    if (task.stream is not None and method == "svi") or (method == "online" and not by_steps):
        settings = {"batch_size": BATCH_SIZE, **settings}
    with warnings.catch_warnings(), threads_for(task.args), time_said():
        raw = ["components merely swap labels", *(["the chains have not mixed"] if task.identify else [])]
        warnings.filterwarnings("ignore", rf"[a-z]+: drew (?!.*diverge).*; ({'|'.join(raw)})")  # see identify
        posterior = how.function(*subject, *args, **settings)
    if row.add_quantities is None:
        return posterior
    added = {name: value[None, None] for name, value in row.add_quantities(posterior.params).items()}
    return replace(posterior, draws={**posterior.draws, **added})


def _with_shared(task: Task) -> Task:
    """Return a task whose model has what it works out from all rows, so that batches share it."""
    if not task.row.shared or task.options["batch_size"]:
        return task
    shared = task.row.shared(task.options, *task.args)
    latent = partial(task.latent_model, **shared) if task.latent_model else None
    return task._replace(model=partial(task.model, **shared), latent_model=latent)


def _subject(task: Task, method: str, guide: str, *, by_steps: bool) -> tuple[Callable | None, ...]:
    """Return what a method takes before the data."""
    row, takes = task.row, METHODS[method].takes
    if takes in ("guide", "guide or steps") and not by_steps:
        cell = guide_of(row, guide)
        if task.own:
            return task.model, with_keywords(cell.function, task.own.arguments, task.own.keywords)
        return task.latent_model if cell.latent else task.model, bind(cell.function, task.options, row.options)
    if takes in ("model", "latent_model"):
        return (getattr(task, takes),)
    make = bind(row.steps[method], task.options, [*row.options, *METHODS[method].options])
    make = partial(make, **{name: value for name, value in task.shared.items() if name in signature(make).parameters})
    return (make() if by_steps else make,)


def _svi_settings(settings: dict[str, Any], guide: Guide, num_rows: int, *, is_own: bool) -> dict[str, Any]:
    """Turn the names of a loss and an optimiser into what `svi` takes; of a user's model it knows no loss to prefer."""
    if "optim" in settings:
        settings["optim"] = OPTIMISERS[settings["optim"]]
    if is_own and not settings.keys() & {"warm_up", "renyi_order"}:
        return settings
    name, preferred = settings.pop("loss", guide.loss), preferred_options(guide.function)
    particles = settings.pop("num_particles", preferred.get("num_particles", 1) if name == guide.loss else 1)
    if warm_up := settings.pop("warm_up", None):
        if name != "trace":
            raise ValueError(f"warm_up goes with the loss trace, and loss is {name}")
        loss = kl_warm_up(warm_up, num_particles=particles)
    else:
        alpha = _given(alpha=settings.pop("renyi_order", None))
        plates = {} if is_own else {"vectorize": True, "max_plate_nesting": 1}  # one plate: over the rows
        loss = named_loss(name, particles, **alpha, **plates)
    batch = {"batch_size": BATCH_SIZE} if guide.minibatch and num_rows > BATCH_SIZE else {}
    return {**batch, **settings, "loss": loss}


def _with_memory(task: Task, settings: dict[str, Any], draws: int | None) -> dict[str, Any]:
    """Make fewer draws of many numbers, unless their number was given; ValueError if memory cannot hold them."""
    wanted, with_local = settings.get("num_draws") or 1000, settings.get("local_draws", True)
    if task.own:  # its dtypes may need to be brought together first
        prepared = prepare("guidebook", task.model, task.args, exact=False)
        sizes = numbers_in(prepared.trace, prepared.rows, with_local=with_local)
    else:
        sizes = numbers_per_draw(task.model, task.args, with_local=with_local)
    if draws is None and "num_draws" in settings:
        settings = settings | {"num_draws": affordable_draws(wanted, sizes)}
        wanted = settings["num_draws"]
    check_memory(task.row.name, wanted * (settings.get("num_chains") or 1), sizes)
    return settings


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
