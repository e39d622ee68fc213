"""Scalar quantities of single draws: the same function of a true value as of each draw of a posterior.

Ranks of true values are uniform only for functions of parameters and data. So a draw may not be put in order by other
draws, as `compare` does: components are put in the order of a number of their own.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ..exchangeable import component_dims
from ..quantities import SiteChoice, informative, scalars

Sites = Mapping[str, Tensor]
Identify = Callable[..., dict[str, Tensor]] | str | Mapping[str, int] | None
METHOD = "calibrate"


class Quantities:
    """Which quantities are ranked; the same for true values and for draws.

    Parameters
    ----------
    identify
        As in `calibrate`.
    chosen : sequence of str, optional
        Sites to rank, once identified.
    per_row : sequence of str
        Sites that are left out without ``chosen``.
    truth : dict of Tensor
        True values, shape (simulation, *site).
    draws : dict of Tensor
        Of the first fit, shape (chain, draw, *site).
    """

    def __init__(
        self, identify: Identify, chosen: Sequence[str] | None, per_row: Sequence[str], truth: Sites, draws: Sites
    ) -> None:
        self._shapes = {name: value.shape[1:] for name, value in truth.items()}
        simulated = {name: value[None] for name, value in truth.items()}
        drawn = {name: value for name, value in simulated.items() if name in draws}
        if isinstance(identify, Mapping):
            _check_dims(identify, simulated)
            identify = {site: dim for site, dim in identify.items() if site in drawn}
        if not drawn:
            there = f"sites {', '.join(truth)}, and draws are of {', '.join(draws)}"
            raise ValueError(f"{METHOD}: no site is both simulated and drawn: simulations have {there}")
        self._identify = SiteChoice(METHOD, chosen, per_row).of(_identification(identify, drawn))
        if callable(identify):
            self._check(draws)
        self._kept = set(informative(self.of(draws)))

    def of(self, sites: Sites) -> dict[str, Tensor]:
        """Return the quantities of draws (chain, draw, *site), each (chain, draw), by `label`."""
        shared = {name: value for name, value in sites.items() if name in self._shapes}
        for name, value in shared.items():
            if value.shape[2:] != self._shapes[name]:
                shapes = f"{tuple(value.shape[2:])}, and the simulated values {tuple(self._shapes[name])}"
                raise ValueError(f"{METHOD}: draws of site {name!r} have shape {shapes}")
        return scalars(self._identify(shared))

    def is_kept(self, name: str) -> bool:
        """Whether a quantity varies and says something that no other says."""
        return name in self._kept

    def _check(self, sites: Sites) -> None:
        """Raise ValueError if a user's function tells another thing of a draw by itself than among these draws."""
        among = self.of(sites)
        for draw in (0, next(iter(sites.values())).shape[1] // 2):
            alone = self.of({name: value[:1, draw : draw + 1] for name, value in sites.items()})
            for name, value in alone.items():
                if name not in among or not torch.allclose(value[0, 0], among[name][0, draw], rtol=1e-3, atol=1e-6):
                    raise ValueError(
                        f"{METHOD}: identify tells something else of a draw by itself than among others (at {name}), "
                        "so that true values cannot be ranked: give a function of single draws, or the components' "
                        "dimension by site, as in identify={'loc': 0, 'weights': 0}"
                    )


def _identification(identify: Identify, truth: Sites) -> Callable[..., dict[str, Tensor]]:
    if callable(identify):
        return identify
    if identify is None:
        return lambda draws: dict(draws)
    if isinstance(identify, Mapping):
        return partial(in_order, dims=identify)
    if identify != "exchangeable":
        raise ValueError(f"{METHOD}: identify must be a function, 'exchangeable' or a dictionary; got {identify!r}")
    if dims := component_dims(truth):
        return partial(in_order, dims=dims)
    raise ValueError(f"{METHOD}: no site has components: say which do, as in identify={{'loc': 0}}")


def _check_dims(identify: Mapping[str, int], truth: Sites) -> None:
    """Raise ValueError unless the sites are simulated and have these dimensions."""
    for site, dim in identify.items():
        if site not in truth or not -truth[site].dim() + 2 <= dim < truth[site].dim() - 2:
            there = ", ".join(f"{name} {tuple(value.shape[2:])}" for name, value in truth.items())
            raise ValueError(f"{METHOD}: identify gives dimension {dim} of {site!r}, and the model has {there}")


def in_order(draws: Sites, *, dims: Mapping[str, int]) -> dict[str, Tensor]:
    """Return draws (chain, draw, *site) with the components of each in ascending order, and other sites as they are.

    ``dims`` is the dimension of the components by site, chain and draw not counted. The first site decides, by its
    first entry.
    """
    leader, *_ = dims
    first = _components_first(draws[leader], dims[leader])
    order = first.reshape(*first.shape[:3], -1)[..., 0].argsort(-1)
    found = dict(draws)
    for name, dim in dims.items():
        value = _components_first(draws[name], dim)
        places = order.reshape(*order.shape, *[1] * (value.dim() - 3)).expand_as(value)
        found[name] = value.gather(2, places).movedim(2, dim % (value.dim() - 2) + 2)
    return found


def _components_first(value: Tensor, dim: int) -> Tensor:
    """Move the components of (chain, draw, *site) behind chain and draw."""
    return value.movedim(dim % (value.dim() - 2) + 2, 2)
