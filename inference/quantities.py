"""From sites to scalar quantities with names, and the figures of each by itself and beside a reference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .diagnostics import disagrees, of_quantities

if TYPE_CHECKING:
    import pandas as pd

Coords = Mapping[str, Sequence[Sequence[str]]]  # site -> names along its last dimensions

Identify = Callable[..., dict[str, Tensor]]  # (draws, anchor=None) -> quantities


class SiteChoice:
    """Which sites are compared: those named, or all but those that say again, row by row, what others say.

    Parameters
    ----------
    method : str
        With which errors begin.
    quantities : sequence of str, optional
        Names of the sites to compare.
    per_row : collection of str
        Sites that are left out without ``quantities``, unless there are no others.

    Attributes
    ----------
    left_out : list of str
        Sites that were left out so, once `of` has been called.
    """

    def __init__(self, method: str, quantities: Sequence[str] | None, per_row: Collection[str]) -> None:
        self._method, self._quantities, self._per_row = method, quantities, per_row
        self.left_out: list[str] = []

    def of(self, identify: Identify) -> Identify:
        """Return a map from draws to quantities that gives the chosen ones alone."""

        def chosen(*draws: Any, **anchor: Any) -> dict[str, Tensor]:
            found = identify(*draws, **anchor)
            if self._quantities is None:
                kept = [name for name in found if name not in self._per_row] or list(found)
                self.left_out = [name for name in found if name not in kept]
            elif missing := [name for name in self._quantities if name not in found]:
                there = ", ".join(found)
                raise ValueError(f"{self._method}: quantities has {missing[0]!r}, and the draws have {there}")
            else:
                kept = list(self._quantities)
            return {name: found[name] for name in kept}

        return chosen

    @property
    def words(self) -> str:
        """A sentence that says what was left out; empty if nothing was."""
        if not self.left_out:
            return ""
        sites, many = ", ".join(self.left_out), len(self.left_out) > 1
        verb, one = ("are", "have") if many else ("is", "has")
        return f"{sites} {verb} left out, which {one} a value per row: quantities= chooses."


def label(site: str, index: Sequence[int], coords: Coords | None = None) -> str:
    """Return the name of an entry of a site: "w[3]", "loc[0,petal length]", or the site's alone if it is a scalar."""
    names = [str(position) for position in index]
    for dim, known in enumerate(reversed((coords or {}).get(site, ())), 1):
        names[-dim] = known[index[-dim]]
    return f"{site}[{','.join(names)}]" if names else site


def check_coords(coords: Coords, shapes: Mapping[str, Sequence[int]], method: str = "compare") -> None:
    """Raise ValueError unless the names fit the sites' shapes, and tell the entries of a dimension apart."""
    for site in coords.keys() & shapes.keys():
        shape, names = tuple(shapes[site]), coords[site]
        if len(names) > len(shape) or tuple(map(len, names)) != shape[len(shape) - len(names) :]:
            given = " × ".join(str(len(known)) for known in names)
            raise ValueError(f"{method}: coords has {given} names for {site!r}, which has shape {shape}")
        for known in names:
            if len(set(known)) < len(known):
                twice = next(name for name in known if list(known).count(name) > 1)
                raise ValueError(f"{method}: coords gives the name {twice!r} to two entries of {site!r}")


def labels(shapes: Mapping[str, Sequence[int]], coords: Coords | None = None) -> list[str]:
    """Return the `label` of every entry of every site, in their order."""
    return [label(site, index, coords) for site, shape in shapes.items() for index in np.ndindex(*shape)]


def scalars(sites: Mapping[str, Tensor], coords: Coords | None = None) -> dict[str, Tensor]:
    """Split draws (chain, draw, *site) into scalars by `label`, in float64 on the CPU."""
    rows = [
        row
        for value in sites.values()
        for row in value.detach().cpu().double().reshape(*value.shape[:2], -1).movedim(2, 0).contiguous()
    ]
    return dict(zip(labels({site: value.shape[2:] for site, value in sites.items()}, coords), rows, strict=True))


def informative(columns: dict[str, Tensor]) -> list[str]:
    """Return the labels of quantities that vary, each once: a symmetric matrix has its off-diagonal entries twice."""
    flat = torch.stack(list(columns.values())).flatten(1)
    varies = flat.std(1, correction=0) > 1e-12 * (1 + flat.abs().mean(1))
    once = {value.numpy().tobytes(): name for name, value in reversed(columns.items())}
    firsts = set(once.values())
    return [name for name, does in zip(columns, varies.tolist(), strict=True) if does and name in firsts]


def moments(draws: Mapping[str, Tensor]) -> pd.DataFrame:
    """Return figures of each quantity by itself: mean, sd, their Monte Carlo errors, R̂ and effective draws."""
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


def beside(
    frame: pd.DataFrame, base: pd.DataFrame, draws: Mapping[str, Tensor], reference: Mapping[str, Tensor]
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


def _wasserstein(draws: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> np.ndarray:
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
