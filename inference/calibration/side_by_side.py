"""Fits to simulated data in several processes, with the results of one."""

import math
from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from ..mcmc.workers import parallel
from .fits import Fits, Tally
from .quantities import Quantities
from .ranks import Ranked

CHUNKS = 4  # that each process gets, one after another: the simulated data go along with each

Draws = Mapping[str, Tensor] | None


def all_draws(fits: Fits, ranked: Ranked, seeds: Sequence[int], processes: int) -> Iterator[Draws]:
    """Yield the draws of a fit to each data set, in their order; None for one that failed.

    The first one that succeeds is fitted in this process, since it decides what is ranked.
    """
    rows = iter(enumerate(seeds))
    for row, seed in rows:
        yield (draws := fits.draws(row, seed, ranked.quantities_of))
        if draws is not None and processes > 1:
            break
    left = list(rows)
    if not left:
        return
    import joblib  # slow to import

    size = math.ceil(len(left) / (CHUNKS * processes))
    chunks = [left[place : place + size] for place in range(0, len(left), size)]
    calls = (joblib.delayed(_fit_rows)(fits, ranked.quantities, chunk) for chunk in chunks)
    for found, tally in parallel(processes, return_as="generator")(calls):
        fits.count(tally)
        yield from found


def _fit_rows(fits: Fits, quantities: Quantities, rows: list[tuple[int, int]]) -> tuple[list[Draws], Tally]:
    own = fits.uncounted()
    return [own.draws(row, seed, lambda _: quantities) for row, seed in rows], own.tally
