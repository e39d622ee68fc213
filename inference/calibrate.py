"""Simulation-based calibration: whether a method's draws are those of the posterior, on data that a model simulates.

Parameters are drawn from the prior and data from the model. Then a true value is one more draw from the posterior, and
its rank among the method's draws is uniform, if the method is right.

References
----------
1. Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with simulation-based
   calibration, arXiv 1804.06788.
2. Modrák, Moon, Kim, Bürkner, Huurre, Faltejsková, Gelman and Vehtari (2023), Simulation-based calibration checking for
   Bayesian computation: the choice of test quantities shapes sensitivity, Bayesian Analysis: the log joint density.
3. Säilynoja, Bürkner and Vehtari (2022), Graphical test for discrete uniformity, Statistics and Computing 32.
4. Yao, Vehtari, Simpson and Gelman (2018), Yes, but did it work? Evaluating variational inference, ICML, section 3.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .calibration.fits import Fits
from .calibration.judged import COLUMNS, Count, judge
from .calibration.quantities import METHOD, Identify
from .calibration.ranks import Ranked
from .calibration.side_by_side import all_draws
from .calibration.simulate import Simulate, simulations
from .options import at_least_one, options_by_name
from .progress import Progress
from .traces.isolate import check_seed

MIN_SIMULATIONS = 20


@dataclass(frozen=True)
class Calibration:
    """How well calibrated a method is on data that a model simulates.

    Attributes
    ----------
    judgement : str
        "good": ranks are uniform, and enough of them to tell; "usable": they are not, but means and sds are off by less
        than `compare` calls usable; "bad"; "cannot say".
    sentence : str
        The same in words, with the figures behind it.
    table : DataFrame
        One row per quantity. ``mean_shift_in_sd``, the mean of draws less that of the posterior, in sds of the
        posterior, and ``sd_ratio``, their sd over the posterior's, both as ranks tell if the posterior is normal;
        ``error_of_shift`` and ``error_of_ratio``, their standard errors; ``p_value`` of uniform ranks and
        ``p_symmetry`` of symmetric ones, both adjusted for the number of quantities; ``direction``: "too narrow", "too
        wide", "biased up", "biased down", two of these, or "of another shape"; empty if ranks are uniform.
    ranks : dict of Tensor
        By quantity, shape (simulation,): how many of the draws are below the true value.
    num_draws : int
        Largest rank, L.
    method : str
        Name of what was judged.
    failed : int
        Fits that ended in an error, which are not ranked.
    few : int
        Fits whose chains had fewer than ``num_draws`` effective draws.
    seconds : float
    """

    judgement: str
    sentence: str
    table: Any
    ranks: dict[str, Tensor]
    num_draws: int
    method: str
    failed: int
    few: int
    seconds: float

    @property
    def num_simulations(self) -> int:
        """Simulated data sets whose fits were ranked."""
        return len(next(iter(self.ranks.values())))

    @property
    def quantities(self) -> dict[str, dict[str, Any]]:
        """The table as plain values: quantity → column → figure, None for one that is not finite."""
        rows = zip(map(str, self.table.index), self.table[COLUMNS].to_numpy(), strict=True)
        return {name: {c: _plain(value) for c, value in zip(COLUMNS, row, strict=True)} for name, row in rows}

    def plot(self) -> Any:
        """Return a matplotlib figure: the distribution of ranks less the uniform one, with its band, per quantity."""
        return import_module("guidebook.plots").plot_calibration(self)  # which nothing here imports otherwise

    def __str__(self) -> str:
        return f"{self.sentence}\n({self.seconds:.1f} s)\n{self.table.to_string(float_format=lambda v: f'{v:.3g}')}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{self.sentence}</p>{self.table.to_html(float_format=lambda v: f'{v:.3g}')}"


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    return float(value) if np.isfinite(value) else None


@options_by_name
def calibrate(
    method: Callable[..., Any],
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    guide: Callable | None = None,
    simulate: Simulate | None = None,
    num_simulations: int = 200,
    num_draws: int = 99,
    identify: Identify = None,
    quantities: Sequence[str] | None = None,
    processes: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> Calibration:
    """Fit a model to data that it has simulated, many times, and judge the method by the ranks of the true values.

    With a guide this is variational simulation-based calibration as well (reference 4): intervals of a guide may be too
    narrow by design, and symmetric ranks say that its means are right all the same.

    Parameters
    ----------
    method : callable
        A method of `guidebook.inference` that takes a model, its options bound: ``nuts``, ``partial(nuts,
        num_draws=500)``, ``svi`` (with ``guide``), ``dadvi``; or one with what else it takes bound:
        ``partial(gibbs, gibbs_steps())``. Any function does that returns a `Posterior` from a model and its data, if
        its first argument is called ``model``, or else from data. It is given ``seed`` and ``progress`` if it takes
        them.
    model : callable
        Any Pyro model in which every parameter has a proper prior.
    *data
        Its arguments, as in a fit: what is observed is replaced by what the model draws, and may be None; the rest,
        such as covariates, stays. None are needed with ``simulate``.
    model_kwargs : mapping, optional
        Further arguments of the model, by name.
    guide : callable, optional
        Guide or guide family, for `svi` and `dadvi`.
    simulate : callable, optional
        ``seed -> (parameters by site, data)``: draws from the prior and arguments of the model, in place of the model's
        own.
    num_simulations : int
        Data sets, at least 20. Of sds 20 % too small, 200 find 3 in 4, and 500 nearly all.
    num_draws : int
        Draws that a true value is ranked among, L: so many of a fit's, evenly spaced. Samplers are run again for longer
        where their effective draws are fewer.
    identify : callable, "exchangeable" or dict of int, optional
        Quantities to rank. Components of a mixture: their dimension by site, or "exchangeable" to find these; they are
        put in the order of the first entry of the first site, in true values as in draws. Or a function of draws
        (chain, draw, *site), in which each draw is on its own; one that matches draws to one another, as for `compare`,
        will not do. Default: sites as they are.
    quantities : sequence of str, optional
        Sites to rank. Default: all but deterministic ones with a value per row.
    processes : int
        Fit in so many processes, with the same numbers; under ``joblib.parallel_config("dask")``, on the cluster.
    seed : int
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Calibration

    Raises
    ------
    ValueError
        If an option is out of range, the model cannot simulate, the method gives a point, or no fit succeeds.
    """
    at_least_one(METHOD, num_draws=num_draws, processes=processes)
    if num_simulations < MIN_SIMULATIONS:
        raise ValueError(f"{METHOD}: num_simulations must be at least {MIN_SIMULATIONS}, got {num_simulations}")
    check_seed(seed)
    begin = time.perf_counter()
    simulated = simulations(model, data, simulate, num_simulations, seed)
    fits = Fits(method, guide, simulated, num_draws)
    ranked = Ranked(simulated, identify, quantities, seed)
    with Progress(METHOD, num_simulations, progress) as bar:
        seeds = np.random.SeedSequence([seed, 1]).generate_state(num_simulations).tolist()
        for row, draws in enumerate(all_draws(fits, ranked, seeds, processes)):
            if draws is not None:
                ranked.add(row, draws)
            bar.update(row + 1, f"{fits.failed} failed" if fits.failed else "")
    if not ranked.ranks:
        raise ValueError(f"{METHOD}: all {num_simulations} fits failed, the first thus: {fits.first_error}")
    count = Count(num_simulations - fits.failed, fits.failed, fits.few, fits.unconverged, fits.first_error)
    ranks = {name: np.array(values) for name, values in ranked.ranks.items()}
    judged = judge(fits.name, ranks, num_draws, count, ranked.notes, is_guide=fits.is_guide)
    return Calibration(
        judged.judgement,
        judged.sentence,
        judged.table,
        {name: torch.from_numpy(values) for name, values in ranks.items()},
        num_draws,
        fits.name,
        fits.failed,
        fits.few,
        time.perf_counter() - begin,
    )
