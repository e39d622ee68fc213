"""The choice between models by how they predict: differences paired over rows, a rule that respects their errors.

Vehtari, Gelman and Gabry (2017), section 5.2: the error of a difference; Sivula, Magnusson, Matamoros and Vehtari
(2020), Uncertainty in Bayesian leave-one-out cross-validation based model comparison, arXiv 2008.10296: errors are
reliable neither for differences below 4 nats nor for fewer than about 100 rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diagnostics import MAX_R_HAT
from ..words import listed
from .score import Score, error_of_sum

if TYPE_CHECKING:
    import pandas as pd

NO_DIFFERENCE = 4.0  # nats: the predictions of two models are as good (Sivula et al. 2020)
NUM_ERRORS = 2.0  # a difference of fewer standard errors may be chance
FEW_ROWS = 100  # below it standard errors are too small (Sivula et al. 2020)

RULE = (
    "The simplest value (the least whole number; of other values, that with the fewest effective parameters) is taken "
    "whose elpd is below the best by no more than two standard errors of the difference or 4 nats."
)


@dataclass(frozen=True)
class Choice:
    """One value of an option, chosen by predictions.

    Attributes
    ----------
    option : str
        What the values are values of.
    chosen, best : hashable
        The value that is taken, and the one with the highest elpd.
    sentence : str
        The answer, with its numbers.
    table : DataFrame
        One row per value: ``elpd`` and ``error``, ``difference`` to the best and ``difference_error``, paired over
        rows, ``num_parameters`` and ``num_unreliable``, then whatever else was given; nats, higher is better.
    scores : dict of Score
        By value; in the order given.
    notes : tuple of str
        What else one should know: sentences.
    """

    option: str
    chosen: Any
    best: Any
    sentence: str
    table: pd.DataFrame
    scores: Mapping[Any, Score]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        table = self.table.dropna(axis="columns", how="all").to_string(float_format=lambda value: f"{value:,.2f}")
        return "\n".join([self.sentence, *self.notes, RULE, "", table])


def choose(
    scores: Mapping[Any, Score],
    *,
    option: str = "model",
    simplicity: Mapping[Any, float] | None = None,
    others: Mapping[str, Mapping[Any, float]] | None = None,
) -> Choice:
    """Choose the simplest of the models that no other predicts better than.

    Parameters
    ----------
    scores : mapping of Score
        Value of the option -> `psis_loo` or `held_out` of the fit at this value, all on the same rows.
    option : str
        What the values are values of, for table and sentence.
    simplicity : mapping, optional
        Value -> number, the less the simpler. Default: whole numbers themselves; else the effective numbers of
        parameters; without those, no value is simpler than another.
    others : mapping, optional
        Name of a further column -> value of the option -> number; they are shown, and not judged by.

    Returns
    -------
    Choice

    Raises
    ------
    ValueError
        If there are fewer than two values, or scores of different numbers of rows or of different kinds.
    ArithmeticError
        If no value gives all rows a finite density.

    Examples
    --------
    >>> fits = {k: nuts(partial(model, num_components=k), x) for k in range(1, 6)}
    >>> choose({k: psis_loo(log_likelihood(fit.draws, x)) for k, fit in fits.items()}, option="num_components")
    """
    _check(scores)
    finite = {value: score for value, score in scores.items() if np.isfinite(score.pointwise).all()}
    if not finite:
        raise ArithmeticError(f"choose: at every {option} some row has a density that is not finite")
    best = max(finite, key=lambda value: finite[value].elpd)
    table = _table(scores, best, option, others or {})
    order = simplicity or _simplicity(scores)
    candidates = [value for value in finite if not _is_worse(table.loc[value])]
    chosen = min(candidates, key=lambda value: order[value]) if order else best
    by_parameters = simplicity is None and not _are_whole(scores)
    sentence = _sentence(table, option, scores[best].how, chosen, best, candidates, order, by_parameters)
    return Choice(option, chosen, best, sentence, table, dict(scores), tuple(_notes(scores, table, option, chosen)))


def _check(scores: Mapping[Any, Score]) -> None:
    if len(scores) < 2:
        raise ValueError(f"choose: there must be two values or more to choose from, got {len(scores)}")
    first = next(iter(scores.values()))
    for value, score in scores.items():
        if len(score.pointwise) != len(first.pointwise):
            raise ValueError(
                f"choose: scores must be of the same rows: {value} has {len(score.pointwise)}, the first has "
                f"{len(first.pointwise)}"
            )
        if score.how != first.how:
            raise ValueError(f"choose: {score.how} (at {value}) and {first.how} cannot be compared")


def _table(
    scores: Mapping[Any, Score], best: Any, option: str, others: Mapping[str, Mapping[Any, float]]
) -> pd.DataFrame:
    import pandas as pd  # slow to import

    rows = []
    for value, score in scores.items():
        paired = score.pointwise - scores[best].pointwise
        figures = {
            "elpd": score.elpd,
            "error": score.error,
            "difference": float(paired.sum()),
            "difference_error": 0.0 if value == best else error_of_sum(paired),
            "num_parameters": math.nan if score.num_parameters is None else score.num_parameters,
            "num_unreliable": math.nan if score.k_hat is None else score.num_unreliable,
        }
        rows.append(figures | {name: column.get(value, math.nan) for name, column in others.items()})
    return pd.DataFrame(rows, index=pd.Index(list(scores), name=option))


def _are_whole(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) for value in values)


def _simplicity(scores: Mapping[Any, Score]) -> Mapping[Any, float] | None:
    if _are_whole(scores):
        return {value: value for value in scores}
    found = {value: score.num_parameters for value, score in scores.items() if score.num_parameters is not None}
    return found if len(found) == len(scores) else None


def _is_worse(row: Any) -> bool:
    """Whether a difference to the best, in nats, is more than nothing and more than chance."""
    error = 0.0 if math.isnan(row["difference_error"]) else row["difference_error"]
    return not -row["difference"] <= max(NO_DIFFERENCE, NUM_ERRORS * error)


def _sentence(
    table: pd.DataFrame,
    option: str,
    how: str,
    chosen: Any,
    best: Any,
    candidates: Sequence[Any],
    order: Mapping[Any, float] | None,
    by_parameters: bool,
) -> str:
    def behind(value: Any) -> str:
        row = table.loc[value]
        if not math.isfinite(row["difference"]):
            return f"{value} gives some rows no density at all"
        return f"{value} is worse{than} by {_nats(-row['difference'])} ± {_nats(row['difference_error'])} nats"

    than = "" if chosen == best else f" than {best}"
    simplest, simpler_one = "is the simplest", "simpler one"
    if by_parameters:
        simplest, simpler_one = "has the fewest effective parameters", "one with fewer effective parameters"
    words = []
    if order:
        simpler = [value for value in table.index if order[value] < order[chosen]]
        if simpler:
            nearest = max(simpler, key=lambda value: order[value])
            words.append(behind(nearest))
        else:
            words.append(f"it {simplest} of those tried")
        rest = [value for value in table.index if order[value] > order[chosen]]
        if chosen != best:
            row = table.loc[chosen]
            figures = f"{_nats(-row['difference'], sign=True)} ± {_nats(row['difference_error'])}"
            words.append(f"{best} is no better than {chosen} ({figures}), and the {simpler_one} is taken")
        elif rest:
            beyond = min(rest, key=lambda value: order[value])
            row = table.loc[beyond]
            if _is_worse(row):
                words.append(behind(beyond))
            else:
                figures = f"{_nats(row['difference'], sign=True)} ± {_nats(row['difference_error'])}"
                words.append(f"{beyond} is no better ({figures})")
    else:
        ties = [value for value in candidates if value != chosen]
        for value in (value for value in table.index if value not in candidates):
            words.append(behind(value))
        if ties:
            words.append(f"{listed(ties)} {'is' if len(ties) == 1 else 'are'} as good within the error")
    return f"{option}={chosen} is chosen by {how}: {'; '.join(words)}."


def _notes(scores: Mapping[Any, Score], table: pd.DataFrame, option: str, chosen: Any) -> list[str]:
    notes = []
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in scores)
    if whole and chosen == max(scores):
        notes.append(f"{chosen} is the largest value tried: a larger one may be better.")
    unreliable = {value: score.num_unreliable for value, score in scores.items() if score.num_unreliable}
    if unreliable:
        limit = next(iter(scores.values())).max_k_hat
        counts = [_share(scores[value], count, value) for value, count in unreliable.items()]
        notes.append(
            f"LOO is not to be relied on for rows with k̂ > {limit:.2g}, without which the posterior would be another: "
            f"{listed(counts)}. Where it matters, hold rows out (folds)."
        )
    apart = [value for value, score in scores.items() if score.chains_disagree]
    if apart:
        largest = max(scores[value].r_hat or 0.0 for value in apart)
        where = f"{option}={listed(apart)}"
        notes.append(
            f"At {where} chains disagree about the log likelihood (R̂ up to {largest:.2f}, at most "
            f"{MAX_R_HAT} allowed): there the figures are those of several modes; draw more."
        )
    size = len(next(iter(scores.values())).pointwise)
    if size < FEW_ROWS:
        notes.append(f"With {size} rows the standard errors may be too small (Sivula et al. 2020).")
    return notes


def _share(score: Score, count: int, value: Any) -> str:
    sums = float(score.pointwise[np.asarray(score.k_hat) > score.max_k_hat].sum())
    return f"{count} of {len(score.pointwise)} at {value} (with {_nats(sums)} of {_nats(score.elpd)} nats)"


def _nats(value: float, *, sign: bool = False) -> str:
    """Format nats to two digits or a whole number."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    text = f"{value:{'+' if sign else ''},.{0 if abs(value) >= 9.95 else 1}f}"
    return text.replace("-", "−")
