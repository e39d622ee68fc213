"""Rows of counts as distributions: independent Poissons, a multinomial with a total for each row, and mixtures of them.

Up to terms without x, both families have log p(x | λ) = Σ_d x_d log λ_d: one matrix product scores all rows under all
components. The terms without λ, the logarithms of factorials, are computed once for a tensor of data.
"""

import math

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Generator, Size, Tensor
from torch.types import _size

from .._shared.cache import remembered

_LOG_OF_ZERO = -1e30  # finite, so that 0 × log 0 = 0; beyond any sum of counts times logarithms
IMPOSSIBLE = -1e29  # a log density below this has a count where the intensity is zero


class CountMixture(TorchDistribution):
    """A row of counts from one of K components, its index summed out.

    Parameters
    ----------
    weights : Tensor, shape (…, k)
        Probabilities of the components.
    intensity : Tensor, shape (…, k, d)
        Rates of the Poissons; probabilities, which sum to one, if there is a ``total_count``.
    total_count : Tensor, shape (…), optional
        Totals of multinomial rows.
    """

    def __init__(
        self, weights: Tensor, intensity: Tensor, total_count: Tensor | None = None, validate_args: bool | None = None
    ) -> None:
        self.weights, self.intensity, self.total_count = weights, intensity, total_count
        of_totals = () if total_count is None else total_count.shape
        batch = torch.broadcast_shapes(weights.shape[:-1], intensity.shape[:-2], of_totals)
        super().__init__(batch, intensity.shape[-1:], validate_args=validate_args)

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:
        """What the parameters must be."""
        own: dict[str, constraints.Constraint] = {
            "weights": constraints.simplex,
            "intensity": constraints.independent(constraints.nonnegative, 2),
        }
        return own if self.total_count is None else own | {"total_count": constraints.nonnegative_integer}

    @property
    def support(self) -> constraints.Constraint:
        """Whole numbers from zero up, with the given total."""
        return _Rows(self.total_count)

    def log_joint(self, value: Tensor) -> Tensor:
        """Logarithm of p(row, component), shape (…, k), for rows (…, d)."""
        joint = _log_product(value, self.intensity) + self.weights.log()
        joint = joint if self.total_count is not None else joint - self.intensity.sum(-1)
        return joint + _log_coefficient(value, self.total_count is not None).unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of rows (…, d), in nats, with all constants."""
        if self._validate_args:
            self._validate_sample(value)
        density = self.log_joint(value).logsumexp(-1)
        return density.expand(torch.broadcast_shapes(self.batch_shape, density.shape))

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Rows, shape (*sample_shape, …, d)."""
        shape = Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            return draw_rows(self.weights, self.intensity, self.total_count, shape)


class Counts(CountMixture):
    """A row of counts from one component: ``Poisson(intensity).to_event(1)``, or a multinomial.

    Parameters
    ----------
    intensity : Tensor, shape (…, d)
    total_count : Tensor, shape (…), optional
        As for `CountMixture`. (Pyro's Multinomial takes one total for all rows.)
    """

    def __init__(self, intensity: Tensor, total_count: Tensor | None = None, validate_args: bool | None = None) -> None:
        super().__init__(intensity.new_ones(1), intensity.unsqueeze(-2), total_count, validate_args)


class _Rows(constraints.Constraint):
    """Rows of whole numbers from zero up, of given totals if there are any."""

    is_discrete = True
    event_dim = 1

    def __init__(self, totals: Tensor | None) -> None:
        self.totals = totals
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        whole = ((value >= 0) & (value == value.floor())).all(-1)
        return whole if self.totals is None else whole & (value.sum(-1) == self.totals)


def draw_rows(
    weights: Tensor, intensity: Tensor, totals: Tensor | None, shape: Size, generator: Generator | None = None
) -> Tensor:
    """Rows of a mixture, (*shape, d), with weights (…, k) and intensity (…, k, d), where … expands to ``shape``."""
    uniform = torch.rand(shape, generator=generator, dtype=weights.dtype, device=weights.device)
    component = (uniform.unsqueeze(-1) > weights.cumsum(-1)[..., :-1]).sum(-1)
    index = component[..., None, None].expand(*shape, 1, intensity.shape[-1])
    chosen = intensity.expand(*shape, *intensity.shape[-2:]).gather(-2, index).squeeze(-2)
    return draw_counts(chosen, totals, generator)


def draw_counts(intensity: Tensor, totals: Tensor | None, generator: Generator | None = None) -> Tensor:
    """Counts (…, d): Poisson, or multinomial as successive binomials, each of what remains of the total."""
    if totals is None:
        return torch.poisson(intensity, generator)
    share = (intensity / intensity.flip(-1).cumsum(-1).flip(-1)).nan_to_num(0.0)  # of this and later columns
    left = totals.to(intensity).expand(intensity.shape[:-1])
    columns = []
    for column in share.unbind(-1):
        columns.append(torch.binomial(left, column.contiguous(), generator))
        left = left - columns[-1]
    return torch.stack(columns, -1)


def _log_product(value: Tensor, intensity: Tensor) -> Tensor:
    """Σ_d x_d log λ_d: 0 log 0 is 0, and a count where the intensity is zero gives -inf."""
    product = torch.einsum("...d,...kd->...k", value, finite_log(intensity))
    return torch.where(product < IMPOSSIBLE, -math.inf, product)


def finite_log(intensity: Tensor) -> Tensor:
    """Logarithm of an intensity, and for that of zero a number below `IMPOSSIBLE`."""
    zero = intensity == 0
    return torch.where(zero, _LOG_OF_ZERO, torch.where(zero, 1.0, intensity).log())


def coefficient(value: Tensor, multinomial: bool) -> Tensor:
    """-Σ_d log x_d!, plus log(Σ_d x_d)! for a multinomial, shape (…)."""
    factorials = (value + 1).lgamma().sum(-1)
    return (value.sum(-1) + 1).lgamma() - factorials if multinomial else -factorials


_log_coefficient = remembered(coefficient)
