"""What can be said of a fit without a reference: one posterior judged, or methods tried until one is good."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from guidebook.catalog import Row
from guidebook.inference import Check, Comparison, Posterior, Verdict, check
from guidebook.inference import fit as fit_any
from guidebook.inference.advice import NEXT
from guidebook.inference.climb import Rung, climb
from guidebook.inference.mcmc.own_chains import by_own_chains
from guidebook.inference.quantities import labels
from guidebook.inference.verdict import is_sampler
from guidebook.workflow.calls import with_commands
from guidebook.workflow.cost import time_said
from guidebook.workflow.files import file_name
from guidebook.workflow.fit import Task, fit
from guidebook.workflow.resolve import split_method
from guidebook.workflow.threads import threads_for


def fit_best(
    task: Task,
    *,
    tolerance: float,
    max_seconds: float | None = None,
    seed: int = 0,
    device: str | None = None,
    progress: bool = False,
    checkpoint: Path | None = None,
    every: float = 30.0,
) -> Posterior:
    """Return the cheapest posterior of a task that is found good; options are those of `guidebook.inference.fit`.

    What is tried is the ladder in the model's row.
    """
    limits: dict[str, Any] = {"tolerance": tolerance, "max_seconds": max_seconds, "seed": seed}
    options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress, "every": every}
    found = (_by_rungs if task.row.ladder else _by_any)(task, limits, options, checkpoint)
    return replace(found, info=replace(found.info, message=with_commands(found.info.message, task.row)))


def _by_any(task: Task, limits: dict[str, Any], options: dict[str, Any], checkpoint: Path | None) -> Posterior:
    """Try what `guidebook.inference.fit` tries for any model."""
    with warnings.catch_warnings(), threads_for(task.args), time_said():
        warnings.filterwarnings("ignore", "fit: nothing was found good")  # which is printed
        how = limits | options | {"coords": task.coords, "checkpoint": checkpoint}
        return fit_any(task.model, *task.args, **how)


def _by_rungs(task: Task, limits: dict[str, Any], options: dict[str, Any], checkpoint: Path | None) -> Posterior:
    """Try the methods of the model's row."""
    rungs = []
    for name in task.row.ladder:
        kept = {"checkpoint": checkpoint and checkpoint / file_name(name)}
        rungs.append(Rung(name, partial(_climbed, task, name, options | kept)))
    how: dict[str, Any] = limits | {"identify": task.identify, "otherwise": task.row.otherwise}
    return climb(rungs, task.model, task.args, partial(_judged, task, limits["seed"]), **how)


MOST_SECONDS = 60.0  # that a verdict which was not asked for may take
MOST_VALUES = 2**23  # draws times quantities: those of 2,000 quantities


def judge(task: Task, posterior: Posterior, seed: int = 0, max_seconds: float | None = None) -> Check:
    """Say how good a posterior of a task is, without a reference; "cannot say" if that takes longer than allowed."""
    guide = task.row.guides.get(posterior.info.guide or "")
    model = task.latent_model if guide is not None and guide.latent else task.model
    assert model is not None
    limits: dict[str, Any] = {"seed": seed, "max_seconds": max_seconds, "progress": False}
    with threads_for(task.args):
        found = check(posterior, model, *task.args, identify=task.identify, **limits)
    return replace(found, sentence=_named(found.sentence, task, posterior))


def judge_alone(task: Task, posterior: Posterior, seed: int = 0) -> Verdict | None:
    """Say how good a posterior of a task is by itself: a fast one's by `judge_fast`, a sampler's by its own chains.

    Where these are merely too short to tell, short chains from the draws say how good the draws are.

    None where `judge_fast` has no answer, and of chains with more numbers than can be judged in seconds.
    """
    if not is_sampler(posterior):
        found = judge_fast(task, posterior, seed)
        return Verdict(found.judgement, found.sentence) if found else None
    if sum(draws.numel() for draws in task.quantities(posterior.draws).values()) > MOST_VALUES:
        return None
    alone = by_own_chains(posterior.info.method, posterior, identify=task.identify, coords=task.coords)
    found = _judged_if_it_can_be(task, posterior, seed) if alone.are_merely_few else None
    if found is not None and found.judgement != "cannot say":
        return Verdict(found.judgement, found.sentence)
    return Verdict(alone.judgement, with_commands(alone.sentence, task.row))


def judge_fast(task: Task, posterior: Posterior, seed: int = 0) -> Check | None:
    """Say how good a fast posterior of a task is.

    None for points, for samplers, and for draws of other sites than the model's.
    """
    if posterior.info.is_point or is_sampler(posterior):
        return None
    return _judged_if_it_can_be(task, posterior, seed)


def _judged_if_it_can_be(task: Task, posterior: Posterior, seed: int) -> Check | None:
    try:
        return judge(task, posterior, seed, MOST_SECONDS)
    except ValueError:
        return None


def judged_alone(comparison: Comparison, task: Task, seed: int = 0) -> Comparison:
    """Return a comparison whose reference was refused with each fast posterior judged without one."""
    if comparison.refused is None:
        return comparison
    verdicts, table = dict(comparison.verdicts), comparison.table.copy()
    for name, posterior in comparison.posteriors.items():
        found = judge_fast(task, posterior, seed)
        if found is None:
            continue
        judgement = "not judged" if found.judgement == "cannot say" else found.judgement
        verdicts[name] = Verdict(judgement, found.sentence.replace(found.method, name, 1))
        table.loc[name, "judgement"] = judgement
    return replace(comparison, verdicts=verdicts, table=table)


def with_commands_there_are(comparison: Comparison, row: Row) -> Comparison:
    """Return a comparison whose verdicts advise commands.

    In place of a method that the model lacks stands what its row says to do instead.
    """
    verdicts = {}
    for name, verdict in comparison.verdicts.items():
        words, _, advice = verdict.sentence.partition(NEXT)
        lacking = row.otherwise and any(f"{method}(" in advice for method in row.unavailable)
        sentence = f"{words}{NEXT}{row.otherwise}." if lacking else verdict.sentence
        verdicts[name] = verdict._replace(sentence=with_commands(sentence, row))
    return replace(comparison, verdicts=verdicts)


def _named(sentence: str, task: Task, posterior: Posterior) -> str:
    """Return a sentence with the quantity that it points at named by the data's columns, and a command to type."""
    sentence = with_commands(sentence, task.row)
    for number, name in names_of_quantities(task, posterior).items():
        sentence = sentence.replace(number, name)
    return sentence


def names_of_quantities(task: Task, posterior: Posterior) -> dict[str, str]:
    """Return the names of quantities by the data's columns, by what they are called with numbers, such as "w[3]"."""
    shapes = {site: draws.shape[2:] for site, draws in task.quantities(posterior.draws).items() if site in task.coords}
    return dict(zip(labels(shapes), labels(shapes, task.coords), strict=True))


def _climbed(task: Task, name: str, options: dict[str, Any], best: Posterior | None) -> Posterior:
    return fit(task, *split_method(task.row, name), init=best, **options)


def _judged(task: Task, seed: int, posterior: Posterior, model: Callable, *data: Any) -> Check:
    return judge(task, posterior, seed)
