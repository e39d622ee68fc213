"""Ranks of true values among draws.

Talts, Betancourt, Simpson, Vehtari and Gelman (2018), Validating Bayesian inference algorithms with simulation-based
calibration, arXiv 1804.06788: algorithms 1 and 2.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from ..diagnostics import ess
from ..posterior import Posterior
from .log_joint import JointDensity
from .quantities import Identify, Quantities
from .simulate import Simulations

LOG_JOINT = "log joint"


class Ranked:
    """Ranks of the true values of simulated data sets, as their fits come in.

    Attributes
    ----------
    ranks : dict of list of int
        By quantity, in the order of the fits.
    notes : list of str
        What is not ranked, as sentences.
    """

    def __init__(self, simulated: Simulations, identify: Identify, chosen: Sequence[str] | None, seed: int) -> None:
        self.ranks: dict[str, list[int]] = {}
        self.notes: list[str] = []
        self._simulated, self._identify, self._chosen = simulated, identify, chosen
        self._rng = np.random.default_rng([seed, 2])
        self._quantities: Quantities | None = None
        self._density: JointDensity | None = None

    @property
    def quantities(self) -> Quantities:
        """What is ranked, once a fit has decided it."""
        assert self._quantities is not None
        return self._quantities

    def quantities_of(self, posterior: Posterior) -> Quantities:
        """Return the quantities to rank, which the first fit decides."""
        if self._quantities is None:
            per_row, truth = posterior.info.per_row or [], self._simulated.truth
            self._quantities = Quantities(self._identify, self._chosen, per_row, truth, posterior.draws)
            density = JointDensity(self._simulated)
            if lacking := density.lacking(posterior.draws):
                self.notes.append(f"The log joint density is not ranked: there are no draws of {', '.join(lacking)}")
            else:
                self._density = density
        return self._quantities

    def add(self, row: int, draws: Mapping[str, Tensor]) -> None:
        """Rank the true values of one data set among draws (1, draw, *site)."""
        assert self._quantities is not None
        truth = {name: value[row][None, None] for name, value in self._simulated.truth.items()}
        true, found = (self._quantities.of(sites) for sites in (truth, draws))
        pairs = {name: torch.cat([true[name][0], value[0]]) for name, value in found.items()}
        if self._density is not None:
            both = {n: torch.cat([truth[n][0].to(v[0]), v[0]]) for n, v in draws.items() if n in truth}
            pairs[LOG_JOINT] = self._density.of(row, both)
        for name, values in pairs.items():
            if name == LOG_JOINT or self._quantities.is_kept(name):
                self.ranks.setdefault(name, []).append(rank(values[0], values[1:], self._rng))


def effective_draws(quantities: Mapping[str, Tensor]) -> float:
    """Return the least effective sample size of quantities (chain, draw) from chains, of means and of squares."""
    stacked = torch.stack(list(quantities.values()), -1)
    varies = (stacked != stacked[:1, :1]).flatten(0, 1).any(0)
    if not varies.any():
        return 0.0
    return float(min(ess(stacked[..., varies]).min(), ess(stacked[..., varies], "sd").min()))


def rank(truth: Tensor, draws: Tensor, rng: np.random.Generator) -> int:
    """Return how many draws are below a true value; equal ones are so at random."""
    return int((draws < truth).sum()) + int(rng.integers(int((draws == truth).sum()) + 1))
