"""How wrong a fast posterior is, without a reference: short chains that start from its own draws.

If the draws are those of the posterior, they stay distributed as they were; otherwise chains carry them towards it, and
what has changed tells how wrong they were. Chains that have not settled are carried on for longer, and where they have
not settled then, the errors say so.

Wang, Kasprzak and Huggins (2023), A targeted accuracy diagnostic for variational approximations, arXiv 2302.12419;
Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman (2024), Nested R̂, Bayesian Analysis.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .advice import for_chains_that_move, longer_chains
from .coords import by_site
from .exchangeable import identification
from .info import CheckInfo, FitInfo
from .mcmc.beside_chains import COLUMNS, IMPROVED, info_of, is_clear, judge_moved, sentence
from .mcmc.moved import TRAJECTORIES, TooSlow, move_draws, seconds_per_chain
from .mcmc.own_chains import by_own_chains
from .options import options_by_name
from .posterior import Posterior
from .progress import Progress
from .quantities import Coords, SiteChoice
from .traces.guides import display_name
from .traces.isolate import check_seed, isolated
from .traces.prepare import Prepared
from .traces.sites import is_local, nodes
from .traces.supports import UNCONSTRAINED
from .traces.target import VectorTarget
from .traces.trained import draws_of_trained, prepare_at
from .verdict import is_sampler
from .words import aligned, table_in_words

if TYPE_CHECKING:
    import pandas as pd

Identify = Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None
GUIDE_DRAWS = 2000  # of a guide that was trained elsewhere
MIN_DRAWS, MIN_CHAINS = 20, 32
MAX_LATENT = 20_000  # latent numbers of which all chains' states are kept


@dataclass(frozen=True)
class Check:
    """How wrong a posterior is, by short chains from its own draws.

    Attributes
    ----------
    judgement : str
        "good", "usable", "bad" or "cannot say", by the thresholds of `compare`.
    sentence : str
        The same in words, with the figures behind it.
    table : DataFrame
        One row per quantity: ``mean_shift_in_sd``, the mean of the draws less that of the posterior, in standard
        deviations of the posterior; ``sd_ratio``, the draws' standard deviation over the posterior's;
        ``error_of_shift`` and ``error_of_ratio``, their standard errors, and what chains that have not settled are off.
    method : str
        Name of what was judged.
    improved : Posterior or None
        The moved draws, shape (chain, draw, *site); `CheckInfo` says how far they can be trusted. None if nothing was
        moved.
    gradients : int
        Points at which a gradient was taken.
    seconds : float
    """

    judgement: str
    sentence: str
    table: pd.DataFrame
    method: str
    improved: Posterior[CheckInfo] | None
    gradients: int
    seconds: float

    @property
    def quantities(self) -> dict[str, dict[str, float | None]]:
        """The table as plain numbers: quantity → column → figure, None for one that is not finite."""
        rows = zip(map(str, self.table.index), self.table[COLUMNS].to_numpy(), strict=True)
        return {
            name: {c: float(v) if math.isfinite(v) else None for c, v in zip(COLUMNS, row, strict=True)}
            for name, row in rows
        }

    def __str__(self) -> str:
        cost = f"{self.gradients:,} gradients, {self.seconds:.1f} s"
        table = aligned(table_in_words(self.table)) if len(self.table) else ""
        return "\n".join(filter(None, [self.sentence, f"({cost})", table]))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.sentence)}</p>{table_in_words(self.table).to_html()}"


@options_by_name
def check(
    posterior_or_guide: Posterior | Callable,
    model: Callable,
    *data: Any,
    model_kwargs: Mapping[str, Any] | None = None,
    num_chains: int = 128,
    identify: Identify = None,
    quantities: Sequence[str] | None = None,
    coords: Coords | None = None,
    max_seconds: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> Check:
    """Judge a fast posterior without a reference, by how far short chains carry its draws.

    The figures are those of the draws as they stand, Monte Carlo error included. What cannot be seen is a mode that no
    draw is near.

    Parameters
    ----------
    posterior_or_guide : Posterior or callable
        What `svi` or another fast method returned; or a trained guide as it is: a function with Pyro's parameter store
        filled, an autoguide or another ``PyroModule``. It is not changed.
    model : callable
        The model that it was fitted to. Discrete latent sites are summed out, and parameters held at their learnt
        values.
    *data
        Arguments of the model; bind others with `functools.partial`.
    model_kwargs : mapping, optional
        Further arguments of the model and the guide, by name: data or options.
    num_chains : int
        Chains, at least 32; the error is inversely proportional to the square root of their number.
    identify : callable, "exchangeable" or dict of int, optional
        As in `compare`: judge quantities that do not depend on the order of components, on signs or rotations.
    quantities : sequence of str, optional
        As in `compare`: sites to judge. Default: all but deterministic ones with a value per row.
    coords : dict of sequences of str, optional
        As in `compare`: names of entries by site, or by plate. Default: those that come with data frames and series,
        as `guidebook.inference.coords` finds them.
    max_seconds : float, optional
        Take fewer chains if that many would take longer, by the time of the first gradients, and "cannot say" if the
        fewest do. Default: no limit.
    seed : int
    device : str or torch.device, optional
        Where the model runs, such as "cuda". Default: the device of the data.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Check

    Raises
    ------
    ValueError
        If the draws are not those of this model, a guide is not trained, an option is out of range, or ``coords`` do
        not fit.
    """
    check_seed(seed)
    if num_chains < MIN_CHAINS:
        raise ValueError(f"check: num_chains must be at least {MIN_CHAINS}, got {num_chains}")
    begin, dtype = time.perf_counter(), _dtype(data)
    subject = _subject(posterior_or_guide, model, data, device, seed)
    prepared = prepare_at("check", model, data, subject.params, device=device, least_dtype=torch.float64)
    if problem := _cannot_check(subject, prepared):
        words = f"{subject.name} cannot be judged by short chains: it {problem}."
        return Check("cannot say", words, _empty(), subject.name, None, 0, time.perf_counter() - begin)
    with isolated(seed, prepared.dtype), Progress("check", TRAJECTORIES, progress) as bar:
        target = VectorTarget("check", prepared)
        choice = SiteChoice("check", quantities, prepared.per_row)
        identified = choice.of(identification("check", identify, subject.draws))
        try:
            if max_seconds is not None:
                each = seconds_per_chain(target, subject.draws)
                num_chains = max(MIN_CHAINS, min(num_chains, int(max_seconds / each)))
                if num_chains * each > max_seconds:
                    raise TooSlow(num_chains * each)
            limit = max_seconds or math.inf
            names = by_site("check", coords or {}, prepared.trace)
            moved = move_draws(target, subject.draws, identified, num_chains, bar, limit, names, is_clear)
        except TooSlow as slow:
            words = (
                f"{subject.name} is not judged: {num_chains} short chains would take about {slow.seconds:.0f} s. Next: "
                "check(posterior, model, …), which takes its time"
            )
            seconds = time.perf_counter() - begin
            return Check("cannot say", words, _empty(), subject.name, None, target.batched.gradients, seconds)
        seconds, gradients = time.perf_counter() - begin, target.batched.gradients
        if moved is None:
            why = "the model's density is zero, or not finite, at its draws: are they of this model and these data?"
            return Check("bad", f"{subject.name} is bad: {why}", _empty(), subject.name, None, gradients, seconds)
        improved = target.draws(moved.vectors, dtype)
    judged = judge_moved(moved)
    notes = f" Parameters {', '.join(prepared.held)} are held at their initial values." if prepared.held else ""
    notes += f" {choice.words}" if choice.left_out else ""
    given = posterior_or_guide if isinstance(posterior_or_guide, Posterior) else None
    advice = {}
    if given is not None and is_sampler(given):
        own = by_own_chains(subject.name, given, identify=identify, quantities=quantities, coords=coords)
        notes += f" By its own chains it may not judge others: {own.problems}." if own.problems else ""
        advice = {"more": longer_chains(given), "better": f"{IMPROVED}, or {longer_chains(given)}"}
    words = sentence(subject.name, judged, moved, notes, for_chains_that_move(given), **advice)
    info = replace(info_of(moved, seed, seconds), per_row=prepared.per_row)
    better = Posterior(draws=improved, params=prepared.params, info=info)
    return Check(judged.graded.judgement, words, judged.table, subject.name, better, gradients, seconds)


class _Subject(NamedTuple):
    """What is judged: draws (chain, draw, *site)."""

    name: str
    draws: Mapping[str, Tensor]
    params: Mapping[str, Tensor]
    is_point: bool


def _subject(given: Any, model: Callable, data: tuple, device: Any, seed: int) -> _Subject:
    if isinstance(given, Posterior):
        made_by = (given.info.method, given.info.guide)
        name = given.info.chosen if isinstance(given.info, FitInfo) else ":".join(filter(None, made_by))
        return _Subject(name, given.draws, given.params, given.info.is_point)
    if not callable(given):
        raise ValueError(f"check: give a Posterior or a trained guide, and then the model; got {type(given).__name__}")
    found = draws_of_trained("check", given, model, data, num_draws=GUIDE_DRAWS, device=device, seed=seed)
    return _Subject(display_name(given), *found)


def _cannot_check(subject: _Subject, prepared: Prepared) -> str | None:
    """Return why nothing can be said of a posterior, as a clause, or None."""
    if subject.is_point:
        return "is a point, without a spread to judge"
    sites = nodes(prepared.trace)
    names = prepared.log_joint().latent
    if (size := sum(sites[name]["value"].numel() for name in names)) > MAX_LATENT:
        return f"has {size:,} latent numbers, and chains can take {MAX_LATENT:,}"
    latent = [name.removesuffix(UNCONSTRAINED) for name in names]
    missing = [name for name in latent if name not in subject.draws]
    if missing and all(name in sites and is_local(sites[name], prepared.rows) for name in missing):
        kept = "svi keeps them with local_draws=True"
        return f"has no draws of {', '.join(missing)}, of which there is one per row ({kept})"
    count = next((value.shape[0] * value.shape[1] for value in subject.draws.values()), 0)
    if count < MIN_DRAWS and not missing:
        return f"has only {count} draws, and at least {MIN_DRAWS} are needed"
    if not missing and latent and all(_is_constant(subject.draws[name]) for name in latent):
        return "has draws that are all the same, without a spread to judge"
    return None


def _is_constant(draws: Tensor) -> bool:
    return bool((draws == draws[:1, :1]).all())


def _dtype(data: tuple) -> torch.dtype:
    """Return the dtype of a user's draws: the default, or a wider one of the data."""
    floating = (value.dtype for value in data if isinstance(value, Tensor) and value.is_floating_point())
    dtype = torch.get_default_dtype()
    for other in floating:
        dtype = torch.promote_types(dtype, other)
    return dtype


def _empty() -> pd.DataFrame:
    import pandas as pd  # slow to import

    return pd.DataFrame(columns=COLUMNS, index=pd.Index([], name="quantity"), dtype=float)
