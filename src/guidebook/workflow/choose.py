"""One option of a model over a range: a fit at each value, scored on the same rows, and the choice between them."""

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from guidebook.inference import Posterior
from guidebook.inference.choice import Choice, Score, held_out, psis_loo
from guidebook.inference.choice import choose as choose_value
from guidebook.inference.mcmc.workers import parallel
from guidebook.inference.progress import Progress
from guidebook.inference.traces.isolate import isolated
from guidebook.inference.traces.prepare import prepare
from guidebook.workflow.fit import Task, fit, load_task, make_own_task, make_task
from guidebook.workflow.folds import densities, fold_of_row, is_point, num_rows, pointwise, without_rows
from guidebook.workflow.ranges import Range, split_range
from guidebook.workflow.resolve import find_row, split_method, with_options
from guidebook.workflow.tasks import run_tasks

DEFAULT_FOLDS = 10  # where a method has no draws for leave-one-out
SECONDS_TO_START = 15.0  # of processes that import torch
_PARALLEL_INSIDE = ("nuts", "hmc", "metropolis")  # one chain per core: the values take turns


class Plan(NamedTuple):
    """Everything that is the same for all values of the range, and the range."""

    task: Task  # with the first value
    range: Range
    method: str
    guide: str | None
    counts: Mapping[str, int | None]  # steps, draws, warmup, chains
    seed: int
    device: str | None
    folds: np.ndarray | None  # (n,): each row's fold; None: leave-one-out
    cluster: str | None = None  # address of a dask scheduler

    @property
    def how(self) -> str:
        """How rows are kept from the fits that they judge."""
        return "PSIS-LOO" if self.folds is None else f"{int(self.folds.max()) + 1}-fold cross-validation"

    def at(self, value: Any) -> Task:
        """Return the task at one value of the option."""
        options = self.task.options | {self.range.option: value}
        if self.task.own:
            return make_own_task(self.task.row, self.task.source, options, self.task.settings)
        return make_task(self.task.row, self.task.data, options)


class Result(NamedTuple):
    """What became of one fit: a problem instead of figures if it failed."""

    seconds: float
    score: Score | None = None  # leave-one-out
    out: Tensor | None = None  # cross-validation: log densities of the rows held out,
    seen: Tensor | None = None  # and of those fitted,
    sizes: Tensor | None = None  # and tokens of the former
    criteria: Mapping[str, float] = {}
    problem: str = ""


def plan(
    model: str,
    settings: Iterable[str],
    *,
    method: str | None = None,
    data: str | None = None,
    folds: int | None = None,
    seed: int = 0,
    device: str | None = None,
    cluster: str | None = None,
    **counts: int | None,
) -> Plan:
    """Read what to fit, load the data and deal the rows into folds.

    Parameters
    ----------
    model : str
        A model of the catalogue, or ``FILE.py:FUNCTION``.
    settings : iterable of str
        ``option=value``; one of them a range.
    method : str, optional
        Default: what the catalogue names for the model.
    data : str, optional
        As for `guidebook.datasets.load`; default: the model's.
    folds : int, optional
        K of K-fold cross-validation. Default: leave-one-out by importance sampling (PSIS-LOO) if the method draws from
        a posterior of the model's parameters.
    seed : int
    device : str, optional
    cluster : str, optional
        Address of a dask scheduler whose workers fit.
    **counts : int, optional
        ``steps``, ``draws``, ``warmup`` and ``chains``, as for `guidebook.workflow.fit.fit`.

    Raises
    ------
    ValueError
        If anything is unknown or out of range, for every value of the option.
    """
    row = find_row(model)
    span, fixed = split_range(row, settings)
    how = row.choosing
    name, guide = split_method(row, method or how.method)
    label = f"{name}:{guide}" if guide else name
    if how.methods and label not in how.methods:
        raise ValueError(
            f"choose: fits of {model} by {label} give no density of a row: take {' or '.join(how.methods)}"
        )
    task = load_task(model, data or row.data.name or None, [*fixed, f"{span.option}={_text(span.values[0])}"])
    number = folds or how.folds or (DEFAULT_FOLDS if is_point(row, name, guide) else None)
    labels = None if row.data.continuous else task.data.y
    dealt = None if number is None else fold_of_row(number, num_rows(task), labels, seed)
    made = Plan(task, span, name, guide, counts, seed, device, dealt, cluster)
    for value in span.values:
        _check_value(made, made.at(value))
    return made


def _check_value(made: Plan, task: Task) -> None:
    """Refuse a value that the model does not take with these data, or with the rows that a fold leaves."""
    split_method(with_options(task.row, task.options), made.method, made.guide)
    if made.folds is not None:
        if task.own and num_rows(task) != len(made.folds):
            raise ValueError(f"choose: {made.range.option} changes how many rows {task.row.name} observes")
        task = without_rows(task, made.folds == np.bincount(made.folds).argmax())
    if task.own:
        prepare("choose", task.model, task.args, exact=False)
        return
    with isolated(made.seed), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of observations outside inference
        task.model(*task.args)


def choose(made: Plan, *, progress: bool = False) -> Choice:
    """Fit at every value of the range, score the fits on the same rows, and choose.

    Fits by one process each run side by side on the cores if there is enough to do for their processes to pay.

    Raises
    ------
    ArithmeticError
        If fewer than two fits succeed.
    """
    values = made.range.values
    rounds = [None] if made.folds is None else list(range(int(made.folds.max()) + 1))
    jobs = [(value, fold) for value in values for fold in rounds]
    results = dict(zip(jobs, run_jobs(made, jobs, progress), strict=True))
    scores: dict[Any, Score] = {}
    others: dict[str, dict[Any, float]] = {"seconds": {}}
    problems: list[str] = []
    for value in values:
        found = [results[value, fold] for fold in rounds]
        problems += [
            f"{made.range.option}={value}: {text}." for text in dict.fromkeys(r.problem for r in found) if text
        ]
        for name, number in found[0].criteria.items():
            others.setdefault(name, {})[value] = number
        if any(result.score is None and result.out is None for result in found):
            continue
        scores[value] = found[0].score or _score_of_folds(made, found)
        others["seconds"][value] = sum(result.seconds for result in found)
        if (perplexity := scores[value].perplexity) is not None:
            others.setdefault("perplexity", {})[value], others.setdefault("perplexity_error", {})[value] = perplexity
    if len(scores) < 2:
        raise ArithmeticError(f"choose: fewer than two fits succeeded: {' '.join(problems)}")
    others = {name: column for name, column in others.items() if len(set(column.values())) > 1}
    choice = choose_value(scores, option=made.range.option, others=others)
    return _with_notes(choice, made, problems)


def run_jobs(made: Plan, jobs: list[tuple[Any, int | None]], progress: bool) -> list[Result]:
    """Run fits, on the cluster, or side by side on the cores if the rest takes longer than starting processes does."""
    import joblib  # slow to import

    cores = 1 if made.method in _PARALLEL_INSIDE or made.device not in (None, "cpu") else joblib.cpu_count()
    processes = min(cores, len(jobs))
    threads = max(1, torch.get_num_threads() // processes)  # the same in this process: sums depend on it
    with Progress(f"choosing {made.range.option}", len(jobs), progress) as bar:
        if made.cluster is not None:
            calls = [_Job(made._replace(cluster=None), *job) for job in jobs]
            done = run_tasks(_run_alone, calls, cluster=made.cluster, note=bar.update)
            lost = Result(0.0, problem="no fit: its workers were lost")
            return [found.result or lost for found in done]
        begin = time.perf_counter()
        results = [run_job(made, *jobs[0], threads)]
        bar.update(1)
        left = (time.perf_counter() - begin) * (len(jobs) - 1)
        rest: Iterator[Result]
        if processes > 1 and left * (1 - 1 / processes) > SECONDS_TO_START:
            calls = (joblib.delayed(run_job)(made, *job, threads) for job in jobs[1:])
            rest = parallel(processes, return_as="generator")(calls)
        else:
            rest = (run_job(made, *job, threads) for job in jobs[1:])
        for result in rest:
            results.append(result)
            bar.update(len(results))
    return results


class _Job(NamedTuple):
    """One fit, as it goes to a worker of a cluster."""

    made: Plan
    value: Any
    fold: int | None


def _run_alone(job: _Job) -> Result:
    return run_job(job.made, job.value, job.fold, 1)


def run_job(made: Plan, value: Any, fold: int | None, threads: int) -> Result:
    """Fit at one value, to all rows or to those outside a fold, and score the fit; criteria with the first fold."""
    task = made.at(value)
    begin = time.perf_counter()
    with _threads(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of chains: judged by the log likelihood, which has no labels or rotations
        try:
            if fold is None:
                posterior = _fit(made, task)
                seconds = time.perf_counter() - begin
                result = Result(
                    seconds, score=psis_loo(pointwise(task, posterior, task.args)), problem=_problem(posterior)
                )
            else:
                result = _cross(made, task, made.folds == fold, begin)
        except ArithmeticError as error:
            result = Result(time.perf_counter() - begin, problem=f"no fit: {error}")
        criteria = made.task.row.choosing.criteria
        if fold or criteria is None:
            return result
        try:
            return result._replace(criteria=criteria(task.data.x.double(), task.options, made.seed))
        except ArithmeticError as error:
            return result._replace(problem="; ".join(filter(None, [result.problem, f"no further criteria: {error}"])))


def _fit(made: Plan, task: Task) -> Posterior:
    return fit(task, made.method, made.guide, **made.counts, seed=made.seed, device=made.device)  # pyright: ignore


def _cross(made: Plan, task: Task, out: np.ndarray, begin: float) -> Result:
    """Fit to the rows outside a fold, and score all."""
    posterior = _fit(made, without_rows(task, out))
    seconds, own = time.perf_counter() - begin, made.task.row.choosing.held_out
    if own is not None:
        inside, outside = (without_rows(task, left).data.x for left in (out, ~out))
        density, sizes = own(posterior, outside, task.options, made.seed)
        seen = None if sizes is not None else own(posterior, inside, task.options, made.seed)[0]
        return Result(seconds, out=density, seen=seen, sizes=sizes)
    density, seen = densities(task, posterior, out)
    return Result(seconds, out=density, seen=seen, problem=_problem(posterior))


def _score_of_folds(made: Plan, found: list[Result]) -> Score:
    """Put the folds' rows in their places, those seen averaged over the fits that saw them."""
    folds: Any = made.folds
    size, number = len(folds), len(found)
    out, seen, sizes = np.zeros(size), np.zeros(size), np.zeros(size)
    for fold, result in enumerate(found):
        inside = folds == fold
        out[inside] = result.out
        if result.seen is not None:
            seen[~inside] += np.asarray(result.seen) / (number - 1)
        if result.sizes is not None:
            sizes[inside] = result.sizes
    return held_out(
        out,
        how=made.how,
        seen=None if found[0].seen is None else seen,
        sizes=None if found[0].sizes is None else sizes,
    )


def _problem(posterior: Posterior) -> str:
    info = posterior.info
    if info.divergences is not None and (count := int(info.divergences.sum())):
        return f"{count} transitions diverged"
    return "" if info.r_hat is not None or info.converged else f"{info.method}: {info.message}"


def _with_notes(choice: Choice, made: Plan, problems: list[str]) -> Choice:
    notes = [*choice.notes, *problems]
    if made.folds is None and made.method == "svi":
        notes.append(f"The draws are those of svi's guide {made.guide}: LOO takes them as the posterior's.")
    return replace(choice, notes=tuple(notes))


@contextmanager
def _threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)
