"""Compare posteriors of one model with a reference, quantity by quantity, and say what the figures mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .diagnostics import ess, mcse, r_hat
from .posterior import Posterior
from .verdict import Verdict, distance, is_sampler, judge, reference_problem

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
        ``sd_ratio_error``, ``wasserstein_in_sd``, ``r_hat``, ``ess``; shifts, distances and errors are in standard
        deviations of the reference; nan if a figure does not apply.
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
    identify: Callable[..., dict[str, Tensor]] | None = None,
    names: Sequence[str] | None = None,
) -> Comparison:
    """Compare posteriors of one model with a reference posterior (not models by predictions, as `arviz.compare` does).

    Parameters
    ----------
    reference : Posterior
        The one to judge by, from NUTS or exact. It must have converged on the identified quantities.
    *others : Posterior
        The ones to judge, of the same model and data.
    identify : callable, optional
        ``(draws, anchor=None) -> quantities``, a model's map from draws to quantities that do not depend on the order
        of components, signs or rotations. Default: the sites that all posteriors share, as they are.
    names : sequence of str, optional
        Names of the posteriors, the reference first. Default: method and guide.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there is nothing to compare, or the posteriors do not have the same quantities.
    """
    posteriors = [reference, *others]
    if not others:
        raise ValueError("compare: give at least one posterior beside the reference")
    names = list(names) if names is not None else _default_names(posteriors)
    if len(names) != len(posteriors) or len(set(names)) != len(names):
        raise ValueError(f"compare: names must be {len(posteriors)} different ones, the reference first; got {names}")

    identify = identify or (lambda draws, anchor=None: dict(draws))
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
    base = _moments(draws[names[0]], None)
    quantities = {n: _moments(draws[n], base, draws[names[0]]) for n in names}

    refused = reference_problem(reference, quantities[names[0]])
    verdicts = {names[0]: _reference_verdict(names[0], reference, quantities[names[0]], refused)}
    for name, posterior in zip(names[1:], others, strict=True):
        unjudged = Verdict("not judged", f"{name} is not judged, because the reference cannot be trusted (see above).")
        verdicts[name] = unjudged if refused else judge(name, names[0], posterior, quantities[name])
    by_name = dict(zip(names, posteriors, strict=True))
    return Comparison(by_name, draws, quantities, _table(by_name, quantities, verdicts), verdicts, refused)


def _default_names(posteriors: Sequence[Posterior]) -> list[str]:
    names = [":".join(filter(None, (posterior.info.method, posterior.info.guide))) for posterior in posteriors]
    taken = [names[:position].count(name) for position, name in enumerate(names)]
    return [f"{name}#{before + 1}" if before else name for name, before in zip(names, taken, strict=True)]


def _scalars(sites: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split draws (chain, draw, *site) into scalars by name, "w[3]" or "covariance[0,1,2]", in float64 on the CPU."""
    found = {}
    for site, value in sites.items():
        value = value.detach().cpu().double()
        for index in np.ndindex(value.shape[2:]):
            label = f"{site}[{','.join(map(str, index))}]" if index else site
            found[label] = value[(..., *index)]
    return found


def _informative(columns: dict[str, Tensor]) -> list[str]:
    """Return the labels of quantities that vary, each once: a symmetric matrix has its off-diagonal entries twice."""
    seen, kept = set(), []
    for label, value in columns.items():
        key = value.numpy().tobytes()
        if key not in seen and float(value.std(correction=0)) > 1e-12 * (1 + float(value.abs().mean())):
            kept.append(label)
        seen.add(key)
    return kept


def _moments(
    draws: dict[str, Tensor], base: pd.DataFrame | None, reference: dict[str, Tensor] | None = None
) -> pd.DataFrame:
    """Return figures of each quantity; with those of the reference, ``base``, also figures relative to it."""
    import pandas as pd  # slow to import, as is scipy.stats

    stacked = torch.stack(list(draws.values()), -1)  # (chain, draw, quantity)
    flat = stacked.flatten(0, 1)
    is_point = len(flat) == 1 or bool((flat == flat[0]).all())
    nothing = np.full(stacked.shape[-1], np.nan)
    frame = pd.DataFrame(
        {
            "mean": flat.mean(0),
            "sd": nothing if is_point else flat.std(0),
            "mcse": 0.0 if is_point else mcse(stacked),
            "mcse_sd": nothing if is_point else mcse(stacked, "sd"),
            "r_hat": nothing if is_point else r_hat(stacked),
            "ess": nothing if is_point else ess(stacked),
        },
        index=pd.Index(list(draws), name="quantity"),
    )
    if base is None or reference is None:
        return frame
    from scipy.stats import wasserstein_distance

    sd = base["sd"]
    frame["mean_shift_in_sd"] = (frame["mean"] - base["mean"]) / sd
    frame["sd_ratio"] = frame["sd"] / sd
    same = np.all(frame["mean_shift_in_sd"] == 0) and np.all(frame["sd_ratio"] == 1)  # the reference itself
    frame["mcse_in_sd"] = (base["mcse"] if same else np.hypot(frame["mcse"], base["mcse"])) / sd
    frame["sd_ratio_error"] = frame["sd_ratio"] * np.hypot(frame["mcse_sd"] / frame["sd"], base["mcse_sd"] / sd)
    frame["wasserstein_in_sd"] = [
        wasserstein_distance(draws[q].flatten().numpy(), reference[q].flatten().numpy()) / sd[q] for q in draws
    ]
    return frame


def _worst(quantities: pd.DataFrame) -> str:
    return str(distance(quantities).fillna(0.0).idxmax())


def _reference_verdict(name: str, posterior: Posterior, quantities: pd.DataFrame, refused: str | None) -> Verdict:
    if refused:
        return Verdict("refused", f"{name} is not fit to judge: {refused}.")
    words = f"{name} is the reference"
    if is_sampler(posterior):
        words += f": R̂ at most {quantities['r_hat'].max():.3f}, at least {quantities['ess'].min():,.0f} effective draws"
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
