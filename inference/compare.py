"""Compare posteriors of one model with a reference, quantity by quantity, and say what the figures mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .diagnostics import MAX_R_HAT, MIN_ESS, disagrees, of_quantities
from .exchangeable import component_dims, match_components, swapping_dims
from .posterior import Posterior
from .verdict import Verdict, distance, is_apart, is_sampler, judge, reference_problem

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
    """

    posteriors: dict[str, Posterior]
    draws: dict[str, dict[str, Tensor]]
    quantities: dict[str, pd.DataFrame]
    table: pd.DataFrame
    verdicts: dict[str, Verdict]
    refused: str | None

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return next(iter(self.posteriors))

    def worst(self, name: str) -> str:
        """Return the quantity at which a posterior is farthest from the reference, relative to what is usable."""
        return _worst(self.quantities[name])

    def __str__(self) -> str:
        table = self.table.drop(columns="judgement").to_string(float_format=lambda v: f"{v:.3g}", na_rep="–")
        return "\n".join([*(verdict.sentence for verdict in self.verdicts.values()), "", table])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sentences = "".join(f"<li>{verdict.sentence}</li>" for verdict in self.verdicts.values())
        return f"<ul>{sentences}</ul>{self.table.to_html(float_format=lambda v: f'{v:.3g}', na_rep='–')}"


def compare(
    reference: Posterior,
    *others: Posterior,
    identify: Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None = None,
    names: Sequence[str] | None = None,
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

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is nothing to compare, or the posteriors do not have the same quantities, or not the components that
        ``identify`` speaks of; or if a parameter that the reference holds has another value in another posterior.
    """
    posteriors = [reference, *others]
    if not others:
        raise ValueError("compare: give at least one posterior beside the reference")
    names = list(names) if names is not None else _default_names(posteriors)
    if len(names) != len(posteriors) or len(set(names)) != len(names):
        raise ValueError(f"compare: names must be {len(posteriors)} different ones, the reference first; got {names}")

    _check_params(names, posteriors)
    if callable(identify):
        return _compared(posteriors, names, identify)
    if identify is None:
        return _with_swaps_noted(_compared(posteriors, names, lambda draws, anchor=None: dict(draws)))
    if identify == "exchangeable":
        dims = component_dims(*_shared(posteriors))
        if not dims:
            raise ValueError("compare: no shared site has components: say which do, as in identify={'loc': 0}")
    elif isinstance(identify, Mapping):
        dims = identify
    else:
        raise ValueError(f"compare: identify must be a function, 'exchangeable' or a dictionary; got {identify!r}")
    return _compared(posteriors, names, partial(match_components, dims=dims))


def _check_params(names: Sequence[str], posteriors: Sequence[Posterior]) -> None:
    """Raise ValueError if a parameter that the reference holds has another value elsewhere: that is another model."""
    reference, *others = ({n: v[0, 0] for n, v in p.draws.items() if (v == v[:1, :1]).all()} for p in posteriors)
    if posteriors[0].info.is_point:
        return
    for name, fixed in zip(names[1:], others, strict=True):
        for site in reference.keys() & fixed.keys():
            one, other = reference[site].double(), fixed[site].double()
            if one.shape == other.shape and not torch.allclose(one, other, rtol=1e-4, atol=1e-6):
                raise ValueError(
                    f"compare: parameter {site!r} has one value in {names[0]} and another in {name}: fit {names[0]} "
                    f"with params= from the Posterior.params of {name}"
                )


def _compared(posteriors: list[Posterior], names: list[str], identify: Callable[..., dict[str, Tensor]]) -> Comparison:
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

    columns = [_scalars({site: q[site] for site in shared}) for q in identified]
    kept = _informative(columns[0]) or list(columns[0])  # a point does not vary
    draws = {n: {label: c[label] for label in kept} for n, c in zip(names, columns, strict=True)}
    base = _moments(draws[names[0]])
    quantities = {n: _beside(_moments(draws[n]), base, draws[n], draws[names[0]]) for n in names[1:]}
    quantities = {names[0]: _beside(base, base, draws[names[0]], draws[names[0]])} | quantities

    refused = reference_problem(reference, quantities[names[0]])
    verdicts = {names[0]: _reference_verdict(names[0], reference, quantities[names[0]], refused)}
    for name, posterior in zip(names[1:], others, strict=True):
        unjudged = Verdict("not judged", f"{name} is not judged, because the reference cannot be trusted (see above).")
        verdicts[name] = unjudged if refused else judge(name, names[0], posterior, quantities[name])
    by_name = dict(zip(names, posteriors, strict=True))
    return Comparison(by_name, draws, quantities, _table(by_name, quantities, verdicts), verdicts, refused)


def _with_swaps_noted(found: Comparison) -> Comparison:
    """Say of chains and posteriors that disagree in nothing but the order of their components that this is so."""
    apart = [name for name, frame in found.quantities.items() if is_apart(frame)]
    posteriors = list(found.posteriors.values())
    dims = swapping_dims(*_shared(posteriors)) if apart else {}
    if not dims:
        return found
    matched = _compared(posteriors, list(found.posteriors), partial(match_components, dims=dims))
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


def _scalars(sites: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split draws (chain, draw, *site) into scalars by name, "w[3]" or "covariance[0,1,2]", in float64 on the CPU."""
    found = {}
    for site, value in sites.items():
        rows = value.detach().cpu().double().reshape(*value.shape[:2], -1).movedim(2, 0).contiguous()
        for index, row in zip(np.ndindex(value.shape[2:]), rows, strict=True):
            found[f"{site}[{','.join(map(str, index))}]" if index else site] = row
    return found


def _informative(columns: dict[str, Tensor]) -> list[str]:
    """Return the labels of quantities that vary, each once: a symmetric matrix has its off-diagonal entries twice."""
    flat = torch.stack(list(columns.values())).flatten(1)
    varies = flat.std(1, correction=0) > 1e-12 * (1 + flat.abs().mean(1))
    once = {value.numpy().tobytes(): label for label, value in reversed(columns.items())}
    firsts = set(once.values())
    return [label for label, does in zip(columns, varies.tolist(), strict=True) if does and label in firsts]


def _moments(draws: dict[str, Tensor]) -> pd.DataFrame:
    """Return figures of each quantity by itself."""
    import pandas as pd  # slow to import

    stacked = torch.stack(list(draws.values()))  # (quantity, chain, draw)
    flat = stacked.flatten(1)
    frame = pd.DataFrame({"mean": flat.mean(1).numpy()}, index=pd.Index(list(draws), name="quantity"))
    if flat.shape[1] == 1 or bool((flat == flat[:, :1]).all()):
        return frame.assign(sd=np.nan, mcse=0.0, mcse_sd=np.nan, r_hat=np.nan, ess=np.nan, disagrees=False)
    chains = stacked.movedim(0, 2)
    figures = of_quantities(chains)
    figures |= {"sd": flat.std(1), "disagrees": disagrees({"": chains}, {"": figures["r_hat"]})[""]}
    return frame.assign(**{name: figure.numpy() for name, figure in figures.items()})


def _beside(
    frame: pd.DataFrame, base: pd.DataFrame, draws: dict[str, Tensor], reference: dict[str, Tensor]
) -> pd.DataFrame:
    """Add figures relative to those of the reference, ``base``."""
    sd, itself = base["sd"], frame is base
    ratio = frame["sd"] / sd
    return frame.assign(
        mean_shift_in_sd=(frame["mean"] - base["mean"]) / sd,
        sd_ratio=ratio,
        mcse_in_sd=(base["mcse"] if itself else np.hypot(frame["mcse"], base["mcse"])) / sd,
        sd_ratio_error=ratio * np.hypot(frame["mcse_sd"] / frame["sd"], base["mcse_sd"] / sd),
        wasserstein_in_sd=_wasserstein(draws, reference) / sd,
    )


def _wasserstein(draws: dict[str, Tensor], others: dict[str, Tensor]) -> np.ndarray:
    """Return each quantity's Wasserstein distance of order one: the mean distance between the two quantile functions.

    These are steps at multiples of 1/n and of 1/m, for n and m draws.
    """
    n, m = (next(iter(d.values())).numel() for d in (draws, others))
    edges = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)
    one, other, width = edges[:-1] // m, edges[:-1] // n, np.diff(edges) / (n * m)
    distances = [
        np.abs(np.sort(draws[q].numpy(), None)[one] - np.sort(others[q].numpy(), None)[other]) @ width for q in draws
    ]
    return np.array(distances)


def _worst(quantities: pd.DataFrame) -> str:
    return str(distance(quantities).fillna(0.0).idxmax())


def _reference_verdict(name: str, posterior: Posterior, quantities: pd.DataFrame, refused: str | None) -> Verdict:
    if refused:
        return Verdict("refused", f"{name} is not fit to judge: {refused}.")
    words = f"{name} is the reference"
    if is_sampler(posterior):
        largest, least = np.max(quantities["r_hat"]), np.min(quantities["ess"])
        by_chance = f" (of {len(quantities):,} quantities, no more than chance)"
        words += f": R̂ at most {largest:.3f}{by_chance if largest > MAX_R_HAT else ''}"
        words += f", at least {least:,.0f} effective draws{by_chance if least < MIN_ESS else ''}"
        words += ", no divergences" if posterior.info.divergences is not None else ""
    return Verdict("reference", f"{words}.")


def _table(
    posteriors: dict[str, Posterior], quantities: dict[str, pd.DataFrame], verdicts: dict[str, Verdict]
) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for position, (name, posterior) in enumerate(posteriors.items()):
        frame = quantities[name]
        worst = _worst(frame) if position else None
        figures = frame.loc[worst] if worst is not None else {}
        row = {"judgement": verdicts[name].judgement, "seconds": posterior.info.seconds}
        row |= {"elbo": posterior.info.elbo, "k_hat": posterior.info.k_hat, "worst": worst or ""}
        rows.append(row | {c: figures.get(c) for c in ("mean_shift_in_sd", "sd_ratio", "wasserstein_in_sd")})
    table = pd.DataFrame(rows, index=pd.Index(list(posteriors), name="method"))
    return table.astype(dict.fromkeys(table.columns.difference(["judgement", "worst"]), float))
