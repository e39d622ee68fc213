"""What ranks say: how far off draws are, in which direction, how sure that is, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..verdict import grade, relative_error
from .errors import errors
from .ranks import LOG_JOINT
from .uniformity import MAX_CHANCE, Uniformity, holm, symmetry

Figures = Any  # a DataFrame; with pandas' own types every figure would be a union
COLUMNS = ["mean_shift_in_sd", "sd_ratio", "error_of_shift", "error_of_ratio", "p_value", "p_symmetry", "direction"]
CERTAIN = 3.0  # standard errors by which a figure names a direction
MAX_FAILED = 0.05  # of all fits


class Judged(NamedTuple):
    """What ranks come to."""

    judgement: str
    sentence: str
    table: Figures


class Count(NamedTuple):
    """What became of the fits."""

    simulations: int  # ranked
    failed: int
    few: int  # with fewer effective draws than ranks
    unconverged: int  # by their own account, or with divergences
    first_error: str


def judge(
    name: str, ranks: Mapping[str, np.ndarray], num_draws: int, count: Count, notes: Sequence[str], *, is_guide: bool
) -> Judged:
    """Return the table of ranks by quantity, each (simulation), out of so many draws, a judgement and a sentence.

    ``notes`` are sentences that follow.
    """
    table = _table(ranks, num_draws)
    outside = table["p_value"] < MAX_CHANCE
    sized = table.drop(index=LOG_JOINT, errors="ignore")  # small errors of many parameters add up in the log joint
    sized = sized if outside[sized.index].any() or not outside.any() else table
    graded = grade(*(sized[column].to_numpy(float) for column in COLUMNS[:4]))
    if count.failed > MAX_FAILED * (count.simulations + count.failed):
        judgement = "cannot say"
    elif outside.any():
        judgement = "bad" if graded.judgement in ("bad", "cannot say") else "usable"
    else:
        judgement = "cannot say" if graded.judgement == "cannot say" else "good"
    words = [f"{name} is {judgement}" if judgement != "cannot say" else f"{name} cannot be judged"]
    words[0] += ": " + (_what_is_wrong(table[outside]) if outside.any() else _nothing(table, count))
    if is_guide:
        words.append(_of_bias(table))
    if count.failed:
        fits = "one fit" if count.failed == 1 else f"{count.failed} fits"
        words.append(f"{fits} of {count.simulations + count.failed} failed, the first thus: {count.first_error}")
    if count.few:
        words.append(
            f"In {count.few} of {count.simulations} fits chains had fewer than {num_draws} effective draws: ranks of "
            "draws that hang together tend to both ends"
        )
    if count.unconverged:
        words.append(
            f"{count.unconverged} of {count.simulations} fits say that they have not converged, or that transitions "
            "diverged"
        )
    if judgement == "cannot say" and not outside.any() and not count.failed:
        words.append("That is too few to tell: take more simulations")
    words += notes
    return Judged(judgement, ". ".join(words) + ".", table)


def _table(ranks: Mapping[str, np.ndarray], num_draws: int) -> Figures:
    import pandas as pd  # slow to import

    stacked = np.stack(list(ranks.values()))
    figures = errors(stacked, num_draws)
    uniform = Uniformity(stacked.shape[1], num_draws, len(stacked))
    figures["p_value"] = holm(uniform.p_values(stacked))
    figures["p_symmetry"] = holm(symmetry(stacked, num_draws).p_values)
    table = pd.DataFrame(figures, index=pd.Index(list(ranks), name="quantity"))
    table["direction"] = [_direction(row) for row in table.to_dict("records")]
    return table[COLUMNS]


def _direction(row: Mapping) -> str:
    """Return in which direction ranks are off, in words; empty if they are not."""
    if row["p_value"] >= MAX_CHANCE:
        return ""
    shift = row["mean_shift_in_sd"] / row["error_of_shift"]
    spread = np.log(row["sd_ratio"]) / float(relative_error(row["error_of_ratio"], row["sd_ratio"]))
    found = []
    if abs(spread) > CERTAIN:
        found.append("too narrow" if spread < 0 else "too wide")
    if abs(shift) > CERTAIN:
        found.append("biased up" if shift > 0 else "biased down")
    return " and ".join(found) or "of another shape"


def _what_is_wrong(table: Figures) -> str:
    """Say of the worst of these quantities, and of how many there are, in which direction they are off."""
    rows = table.to_dict("index")
    worst = min(rows, key=lambda name: (rows[name]["p_value"], name == LOG_JOINT, -_size(rows[name])))
    row = rows[worst]
    shift = f"{row['mean_shift_in_sd']:+.2f} ± {row['error_of_shift']:.2f} sd".replace("-", "−")
    figures = f"means {shift}, sds × {row['sd_ratio']:.2f} ± {row['error_of_ratio']:.2f}"
    words = f"draws of {worst} are {row['direction']} ({figures}; p {_p(row['p_value'])})"
    if others := len(rows) - 1:
        words += f", and those of {others} other quantit{'y' if others == 1 else 'ies'} are off, too"
    return words


def _size(row: Mapping) -> float:
    return max(abs(row["mean_shift_in_sd"]), abs(float(np.log(row["sd_ratio"]))))


def _nothing(table: Figures, count: Count) -> str:
    known = f"means are known to ± {table['error_of_shift'].max():.2f} sd, sds to ± {table['error_of_ratio'].max():.0%}"
    return (
        f"over {count.simulations} simulations the ranks of {_number(len(table))} are uniform "
        f"(p {_p(table['p_value'].min())} for the least so; {known})"
    )


def _of_bias(table: Figures) -> str:
    """Say what symmetry says of a guide, whose spread may be wrong by design (Yao et al. 2018)."""
    biased = table[table["p_symmetry"] < MAX_CHANCE].drop(index=LOG_JOINT, errors="ignore")
    if biased.empty:
        least = table.drop(index=LOG_JOINT, errors="ignore")["p_symmetry"].min()
        return f"VSBC: ranks are symmetric (p {_p(least)} for the least so), so that there is no sign of bias"
    rows = biased.to_dict("index")
    worst = max(rows, key=lambda name: abs(rows[name]["mean_shift_in_sd"]))
    shift = f"{rows[worst]['mean_shift_in_sd']:+.2f} sd".replace("-", "−")
    return f"VSBC: {_number(len(biased))} biased, most of all {worst} ({shift})"


def _number(count: int) -> str:
    return "one quantity" if count == 1 else f"{count} quantities"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.2g}"
