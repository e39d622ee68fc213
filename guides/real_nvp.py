"""Real NVP as a guide of any model: affine couplings and bent margins between a normal and the latent variables.

| symbol | attribute | shape | meaning |
|---|---|---|---|
| ε | | (d,) | standard normal |
| ε ↦ sinh((asinh ε + a) exp b) | ``margins`` | (d,) each | bends each margin: skewness a, weight of tails b |
| ε₂ ↦ ε₂ exp s(ε₁) + t(ε₁) | ``couplings`` | (d - d/2,) | shifts and scales one half by a network of the other |
| z = m + S L ε | ``loc``, ``scale``, ``scale_tril`` | (d,), (d,), (d, d) | location, scales, correlations |

References
----------
1. Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
2. Agrawal and Domke (2024), Disentangling impact of capacity, objective, batchsize, estimators, and step-size on flow
   VI, arXiv 2412.08824.
3. Jones and Pewsey (2009), Sinh-arcsinh distributions, Biometrika 96.
"""

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.distributions.transforms import AffineCoupling, ComposeTransform, LowerCholeskyAffine
from pyro.infer.autoguide import AutoContinuous
from pyro.nn import PyroParam
from torch import Tensor, nn
from torch.distributions import Transform

MAX_LOG_SCALE = 2.0  # of one coupling: bounded, so that a draw in a tail cannot explode
MAX_BEND = 1.0  # of a margin's skewness and tail weight, for the same reason


class RealNvp(AutoContinuous):
    """Standard normal, then ``num_transforms`` times bent margins and a coupling, then an affine map; at first that."""

    scale_constraint = constraints.softplus_positive
    scale_tril_constraint = constraints.unit_lower_cholesky

    def __init__(self, model: Callable, *, num_transforms: int, hidden: int | None, init_scale: float) -> None:
        self._num_transforms, self._hidden, self._init_scale = num_transforms, hidden, init_scale
        super().__init__(model)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        loc = self._init_loc()
        size, fixed = len(loc), len(loc) // 2
        self.loc = nn.Parameter(loc)
        self.scale = PyroParam(torch.full_like(loc, self._init_scale), self.scale_constraint)
        self.scale_tril = PyroParam(torch.eye(size).to(loc), self.scale_tril_constraint)
        units = self._hidden or max(16, min(2 * size, 64))
        layers = range(self._num_transforms)
        self.margins = nn.ParameterList([nn.Parameter(torch.zeros(2, size).to(loc)) for _ in layers])
        self.couplings = nn.ModuleList([_network(fixed, units, size - fixed).to(loc) for _ in layers if fixed])
        evens_first = torch.cat([torch.arange(0, size, 2), torch.arange(1, size, 2)])
        orders = [torch.arange(size).flip(0).to(loc.device), evens_first.to(loc.device)]
        self._orders = [(order, order.argsort()) for order in orders]

    def get_base_dist(self) -> Any:
        """Return the standard normal."""
        return dist.Normal(torch.zeros_like(self.loc), torch.ones_like(self.loc)).to_event(1)

    def get_transform(self, *args: Any, **kwargs: Any) -> Any:
        """Return the transformation of it to the unconstrained latent variables, whatever the data."""
        parts: list[Any] = []
        for index, margin in enumerate(self.margins):
            parts.append(Bend(*(MAX_BEND * torch.tanh(margin / MAX_BEND))))
            if len(self.couplings):
                parts.append(AffineCoupling(self.latent_dim // 2, _bounded(self.couplings[index])))
                parts.append(Reorder(*self._orders[index % 2]))
        parts.append(LowerCholeskyAffine(self.loc, scale_tril=torch.einsum("i,ij->ij", self.scale, self.scale_tril)))
        return ComposeTransform(parts)


class Bend(Transform):
    """ε ↦ sinh((asinh ε + a) exp b), entry by entry (reference 3, equation 1, where a tail's weight is exp -b)."""

    domain = codomain = constraints.real
    bijective = True

    def __init__(self, a: Tensor, b: Tensor) -> None:
        super().__init__(cache_size=1)
        self.a, self.b = a, b

    def _call(self, x: Tensor) -> Tensor:
        return torch.sinh((torch.asinh(x) + self.a) * self.b.exp())

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.sinh(torch.asinh(y) * (-self.b).exp() - self.a)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the log derivative: cosh and asinh meet in a square root."""
        return self.b + 0.5 * (torch.log1p(y.square()) - torch.log1p(x.square()))


class Reorder(Transform):
    """Entries in another order, given with its inverse: Pyro's `Permute` computes that in place, as no graph may."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, order: Tensor, inverse: Tensor) -> None:
        super().__init__(cache_size=1)
        self.order, self.inverse = order, inverse

    def _call(self, x: Tensor) -> Tensor:
        return x.index_select(-1, self.order)

    def _inverse(self, y: Tensor) -> Tensor:
        return y.index_select(-1, self.inverse)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return zero."""
        return x.new_zeros(x.shape[:-1])


def _network(inputs: int, units: int, moved: int) -> nn.Sequential:
    """Return a network of shifts and raw log scales that starts at zero."""
    last = nn.Linear(units, 2 * moved)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, units), nn.Tanh(), nn.Linear(units, units), nn.Tanh(), last)


def _bounded(network: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def shift_and_log_scale(z: Tensor) -> tuple[Tensor, Tensor]:
        shift, raw = network(z).chunk(2, -1)
        return shift, MAX_LOG_SCALE * torch.tanh(raw / MAX_LOG_SCALE)

    return shift_and_log_scale
