"""Compare posteriors of one model with a reference, quantity by quantity, and say what the figures mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .exchangeable import identification, match_components, swapping_dims
from .headline import headline
from .judge import judge, judge_reference
from .posterior import Posterior
from .quantities import Coords, SiteChoice, beside, check_coords, informative, labels, moments, scalars
from .verdict import Verdict, distance, is_apart, reference_problems
from .words import aligned, table_in_words

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Posteriors beside a reference.

    Attributes
    ----------
    posteriors : dict of Posterior
        By name, in the order given; the first is the reference.
    draws : dict of dict of Tensor
        Name → quantity → draws, shape (chain, draw): identified scalars that vary under the reference.
    quantities : dict of DataFrame
        Name → one row per quantity, with ``mean``, ``sd``, ``mean_shift_in_sd``, ``sd_ratio``, ``mcse_in_sd``,
        ``sd_ratio_error``, ``wasserstein_in_sd``, ``r_hat``, ``disagrees`` (whether R̂ is above its limit, and not as
        the largest of many by chance) and ``ess`` (effective draws for the mean or for the sd, whichever are fewer);
        shifts, distances and errors are in standard deviations of the reference; nan if a figure does not apply.
    table : DataFrame
        One row per posterior: judgement, seconds, ELBO (nats), k̂, the worst quantity and its figures.
    verdicts : dict of Verdict
        Name → judgement and sentence; the reference's own says whether it is fit to judge.
    refused : str or None
        Why the reference is not fit to judge, if so: then no other posterior is judged.
    numbered : dict of str
        Quantity → its name with a number for every index, "w[3]"; another one than the key where ``coords`` names it.
    left_out : str
        A sentence that says which sites were left out without being told, empty if none was.
    """

    posteriors: dict[str, Posterior]
    draws: dict[str, dict[str, Tensor]]
    quantities: dict[str, pd.DataFrame]
    table: pd.DataFrame
    verdicts: dict[str, Verdict]
    refused: str | None
    numbered: dict[str, str]
    left_out: str = ""

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return next(iter(self.posteriors))

    def worst(self, name: str) -> str:
        """Return the quantity at which a posterior is farthest from the reference, relative to what is usable."""
        return _worst(self.quantities[name])

    @property
    def headline(self) -> str:
        """The quickest answer that is as good as the reference's, or that there is none, in one sentence."""
        return headline(self)

    def _sentences(self) -> list[str]:
        return [*(verdict.sentence for verdict in self.verdicts.values()), *filter(None, [self.left_out])]

    def __str__(self) -> str:
        return "\n".join([*self._sentences(), "", aligned(table_in_words(self.table.drop(columns="judgement")))])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in self._sentences())
        return (
            f"<p><strong>{escape(self.headline)}</strong></p><ul>{sentences}</ul>{table_in_words(self.table).to_html()}"
        )


def compare(
    reference: Posterior,
    *others: Posterior,
    identify: Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None = None,
    names: Sequence[str] | None = None,
    coords: Coords | None = None,
    quantities: Sequence[str] | None = None,
) -> Comparison:
    """Compare posteriors of one model with a reference posterior (not models by predictions, as `arviz.compare` does).

    Parameters
    ----------
    reference : Posterior
        The one to judge by, from NUTS or exact. It must have converged on the identified quantities.
    *others : Posterior
        The ones to judge, of the same model and data.
    identify : callable, "exchangeable" or dict of int, optional
        ``(draws, anchor=None) -> quantities``, a model's map from draws to quantities that do not depend on the order
        of components, signs or rotations. "exchangeable" puts the components of a mixture in one order; a dictionary
        does so too and says which sites have them, and in which dimension of the site: ``{"weights": 0, "loc": 0}``.
        Default: the sites that all posteriors share, as they are.
    names : sequence of str, optional
        Names of the posteriors, the reference first. Default: method and guide.
    coords : dict of sequences of str, optional
        Names of entries, by identified site, along its last dimensions: ``{"w": [["bias", "age"]]}`` makes the second
        entry of w the quantity "w[age]", and ``{"loc": [["age", "height"]]}`` the first of loc, shape (k, 2),
        "loc[0,age]". Default: numbers. Sites that are not compared may be there.
    quantities : sequence of str, optional
        Names of the sites, or of what ``identify`` returns, to compare. Default: all, but for deterministic sites with
        a value per row of the data where latent sites have none (`Info.per_row`), which say again what these say.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is nothing to compare, or the posteriors do not have the same quantities, or not the components that
        ``identify`` speaks of; or if a parameter that the reference holds has another value in another posterior; or if
        ``coords`` do not fit a site, or name two entries alike.
    """
    posteriors = [reference, *others]
    if not others:
        raise ValueError("compare: give at least one posterior beside the reference")
    names = list(names) if names is not None else _default_names(posteriors)
    if len(names) != len(posteriors) or len(set(names)) != len(names):
        raise ValueError(f"compare: names must be {len(posteriors)} different ones, the reference first; got {names}")

    _check_params(names, posteriors)
    choice = SiteChoice("compare", quantities, {site for p in posteriors for site in p.info.per_row or ()})
    identified = choice.of(identification("compare", identify, *_shared(posteriors)))
    found = replace(_compared(posteriors, names, identified, coords), left_out=choice.words)
    return _with_swaps_noted(found, coords, choice) if identify is None else found


def _check_params(names: Sequence[str], posteriors: Sequence[Posterior]) -> None:
    """Raise ValueError if a parameter that the reference holds has another value elsewhere: that is another model."""
    reference, *others = ({n: v[0, 0] for n, v in p.draws.items() if (v == v[:1, :1]).all()} for p in posteriors)
    if posteriors[0].info.is_point or posteriors[0].info.guide is not None:
        return  # it has learned them, and holds none
    for name, fixed in zip(names[1:], others, strict=True):
        for site in reference.keys() & fixed.keys():
            one, other = reference[site].double(), fixed[site].double()
            if one.shape == other.shape and not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f"compare: parameter {site!r} has one value in {names[0]} and another in {name}: fit {names[0]} "
                    f"with params= from the Posterior.params of {name}"
                )


def _compared(
    posteriors: list[Posterior],
    names: list[str],
    identify: Callable[..., dict[str, Tensor]],
    coords: Coords | None,
) -> Comparison:
    reference, *others = posteriors
    anchor = identify(reference.draws)
    identified = [anchor, *(identify(posterior.draws, anchor) for posterior in others)]
    shared = [site for site in anchor if all(site in q for q in identified)]
    for name, q in zip(names, identified, strict=True):
        for site in shared:
            if q[site].shape[2:] != anchor[site].shape[2:]:
                raise ValueError(
                    f"compare: {site!r} has shape {tuple(q[site].shape[2:])} in {name} "
                    f"and {tuple(anchor[site].shape[2:])} in {names[0]}: these are different models or data"
                )
    if not shared:
        raise ValueError(f"compare: the posteriors share no site; {names[0]} has {', '.join(anchor)}")

    shapes = {site: anchor[site].shape[2:] for site in shared}
    check_coords(coords or {}, shapes)
    columns = [scalars({site: q[site] for site in shared}, coords) for q in identified]
    numbered = dict(zip(columns[0], labels(shapes), strict=True))
    kept = informative(columns[0]) or list(columns[0])  # a point does not vary
    draws = {n: {label: c[label] for label in kept} for n, c in zip(names, columns, strict=True)}
    base = moments(draws[names[0]])
    quantities = {n: beside(moments(draws[n]), base, draws[n], draws[names[0]]) for n in names[1:]}
    quantities = {names[0]: beside(base, base, draws[names[0]], draws[names[0]])} | quantities

    refused = "; ".join(reference_problems(reference, quantities[names[0]]).values()) or None
    verdicts = {names[0]: judge_reference(names[0], reference, quantities[names[0]])}
    for name, posterior in zip(names[1:], others, strict=True):
        unjudged = Verdict("not judged", f"{name} is not judged, because the reference cannot be trusted (see above).")
        verdicts[name] = unjudged if refused else judge(name, names[0], posterior, quantities[name])
    by_name = dict(zip(names, posteriors, strict=True))
    table = _table(by_name, quantities, verdicts)
    return Comparison(by_name, draws, quantities, table, verdicts, refused, {label: numbered[label] for label in kept})


def _with_swaps_noted(found: Comparison, coords: Coords | None, choice: SiteChoice) -> Comparison:
    """Say of chains and posteriors that disagree in nothing but the order of their components that this is so."""
    apart = [name for name, frame in found.quantities.items() if is_apart(frame)]
    posteriors = list(found.posteriors.values())
    dims = swapping_dims(*_shared(posteriors)) if apart else {}
    if not dims:
        return found
    by_component = choice.of(partial(match_components, dims=dims))
    matched = _compared(posteriors, list(found.posteriors), by_component, coords)
    swapped = [name for name in apart if not is_apart(matched.quantities[name])]
    why = f"components merely swap labels (in {', '.join(dims)}): compare with identify='exchangeable'"

    refused, verdicts = found.refused, dict(found.verdicts)
    if found.reference in swapped and refused:
        refused = f"{refused}; {why}"
        verdicts[found.reference] = Verdict("refused", f"{found.reference} is not fit to judge: {refused}.")
    for name in swapped:
        if verdicts[name].judgement in ("bad", "point", "too few draws"):
            verdicts[name] = Verdict("not judged", f"{name} is not judged: {why}.")
    table = _table(found.posteriors, found.quantities, verdicts)
    return replace(found, table=table, verdicts=verdicts, refused=refused)


def _shared(posteriors: Sequence[Posterior]) -> list[dict[str, Tensor]]:
    """Return the draws of sites that all posteriors have, in one shape."""
    first, *others = [posterior.draws for posterior in posteriors]
    sites = [n for n, v in first.items() if all(n in o and o[n].shape[2:] == v.shape[2:] for o in others)]
    return [{site: draws[site] for site in sites} for draws in (first, *others)]


def _default_names(posteriors: Sequence[Posterior]) -> list[str]:
    names = [":".join(filter(None, (posterior.info.method, posterior.info.guide))) for posterior in posteriors]
    taken = [names[:position].count(name) for position, name in enumerate(names)]
    return [f"{name}#{before + 1}" if before else name for name, before in zip(names, taken, strict=True)]


def _worst(quantities: pd.DataFrame) -> str:
    return str(distance(quantities).fillna(0.0).idxmax())


def _table(
    posteriors: dict[str, Posterior], quantities: dict[str, pd.DataFrame], verdicts: dict[str, Verdict]
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for position, (name, posterior) in enumerate(posteriors.items()):
        frame = quantities[name]
        worst = _worst(frame) if position and distance(frame).notna().any() else None
        figures = frame.loc[worst] if worst is not None else {}
        row = {"judgement": verdicts[name].judgement, "seconds": posterior.info.seconds}
        row |= {"elbo": posterior.info.elbo, "k_hat": posterior.info.k_hat, "worst": worst or ""}
        rows.append(row | {c: figures.get(c) for c in ("mean_shift_in_sd", "sd_ratio", "wasserstein_in_sd")})
    table = pd.DataFrame(rows, index=pd.Index(list(posteriors), name="method"))
    return table.astype(dict.fromkeys(table.columns.difference(["judgement", "worst"]), float))
