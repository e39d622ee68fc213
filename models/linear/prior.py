"""The prior's units, its conjugate form, and the options that every part of the model takes."""

from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from .._shared.inputs import check_precision, rows_of, target_of
from .._shared.scores import design
from .conjugate import NormalInverseGamma

Noise = Literal["normal", "student"]
Prior = Literal["normal", "horseshoe"]

BIAS_SCALE = 10.0  # prior sd of the bias about the target's mean, relative to that of a weight
NOISE_SHAPE = 0.5  # of the inverse gamma: one observation's worth


class Units(NamedTuple):
    """What the prior takes from the data: other units of the target change the prior's units and nothing else.

    Attributes
    ----------
    mean : Tensor, scalar
        m: where the bias is centred, in the target's units.
    sd : Tensor, scalar
        u: what the noise's sd is expected to be about, in the target's units.
    num_rows : int
        n, by which the horseshoe scales its global scale.
    """

    mean: Tensor
    sd: Tensor
    num_rows: int


def data_of(x: Any, y: Any = None) -> tuple[Tensor, Any]:
    """Return features and target in one dtype; ValueError unless they are finite rows with a number each."""
    x = rows_of("linear", x)
    if y is None:
        return x, None
    y = target_of("linear", y, x)
    dtype = torch.promote_types(x.dtype, y.dtype)
    return x.to(dtype), y.to(dtype)


def checked(x: Any, y: Any, prior_scale: float) -> tuple[Tensor, Tensor]:
    """Return data as `data_of` does, for methods that factorise the precision of the weights."""
    x, y = data_of(x, y)
    check_positive(prior_scale=prior_scale)
    check_precision("linear", design(x), prior_scale**-2, 1.0)
    return x, y


def units_of(y: Float[Tensor, " n"]) -> Units:
    """Return mean, standard deviation (with 1/n) and number of rows of a target; ValueError if it does not vary."""
    check_varies(y)
    return measured(y)


def measured(y: Float[Tensor, " n"]) -> Units:
    """Return `units_of` a target without a branch on its values, which compiled code cannot take; sd 1 if it is 0."""
    mean = y.mean()
    sd = (y - mean).square().mean().sqrt()
    return Units(mean, torch.where(sd > 0, sd, 1), len(y))


def centre_and_scale(units: Units, num_features: int, prior_scale: float) -> tuple[Tensor, Tensor]:
    """Return prior means of bias and weights, (d + 1), and prior sds in units of the noise's sd, (d + 1)."""
    rest = units.mean.new_zeros(num_features)
    return torch.cat([units.mean[None], rest]), prior_scale * torch.cat([rest.new_full((1,), BIAS_SCALE), rest + 1])


def conjugate_prior(units: Units, num_features: int, prior_scale: float) -> NormalInverseGamma:
    """Return the normal prior of weights and noise variance; ValueError if ``prior_scale`` is not positive."""
    check_positive(prior_scale=prior_scale)
    centre, scale = centre_and_scale(units, num_features, prior_scale)
    shape = units.sd.new_full((), NOISE_SHAPE)
    return NormalInverseGamma(centre, torch.diag(scale**-2), shape, shape * units.sd.square())


def check_varies(y: Tensor) -> None:
    """Raise ValueError if all values of a target are the same."""
    if not bool((y != y[0]).any()):
        raise ValueError(f"linear: the target does not vary: all {len(y)} values are {float(y[0]):g}")


def check_noise(noise: str, df: float) -> None:
    """Raise ValueError for unknown noise, or degrees of freedom that are not positive."""
    if noise not in ("normal", "student"):
        raise ValueError(f"linear: unknown noise {noise!r}: there is normal and student")
    check_positive(df=df)


def check_positive(**options: float) -> None:
    """Raise ValueError unless all options are positive."""
    for name, value in options.items():
        if not value > 0:
            raise ValueError(f"linear: {name} must be positive, got {value}")


def check_share(relevant_share: float) -> None:
    """Raise ValueError unless the share of features that matter lies between 0 and 1."""
    if not 0 < relevant_share < 1:
        raise ValueError(f"linear: relevant_share must lie between 0 and 1, got {relevant_share}")


def check_prior(prior: str) -> None:
    """Raise ValueError for an unknown prior."""
    if prior not in ("normal", "horseshoe"):
        raise ValueError(f"linear: unknown prior {prior!r}: there is normal and horseshoe")


def check_normal_prior(what: str, prior: str) -> None:
    """Raise ValueError where only the normal prior will do."""
    check_prior(prior)
    if prior != "normal":
        raise ValueError(f"linear: {what} is for the normal prior, and prior is {prior}: take nuts, dadvi or svi")
