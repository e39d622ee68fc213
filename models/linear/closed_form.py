"""The exact posterior and evidence of normal noise under a normal prior."""

from jaxtyping import Float
from torch import Tensor

from .._shared.steps import ExactPosterior
from .conjugate import draw, log_evidence, statistics, update
from .prior import Noise, Prior, Units, check_noise, check_normal_prior, checked, conjugate_prior, units_of


def closed_form(
    x: Float[Tensor, "n d"],
    y: Float[Tensor, " n"],
    *,
    noise: Noise = "normal",
    prior: Prior = "normal",
    prior_scale: float = 1.0,
    units: Units | None = None,
) -> ExactPosterior:
    """Return the posterior, normal-inverse-gamma, for `guidebook.inference.closed_form`.

    Gelman et al. (2013), section 14.8. A weight alone is Student's t with 2 ``shape`` degrees of freedom around its
    mean, of squared scale rate / shape times its entry of precision⁻¹.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    y : Tensor, shape (n,)
    noise, prior, prior_scale, units
        As for `model`.

    Returns
    -------
    ExactPosterior
        ``params`` are those of `NormalInverseGamma`; the evidence is that of y given x, in nats.

    Raises
    ------
    ValueError
        If noise or prior is not normal, an option is out of range, or the target does not vary.
    """
    check_noise(noise, 1.0)
    check_normal_prior("closed_form", prior)
    if noise != "normal":
        raise ValueError(f"linear: closed_form is for normal noise, and noise is {noise}: take gibbs")
    x, y = checked(x, y, prior_scale)
    before = conjugate_prior(units or units_of(y), x.shape[1], prior_scale)
    after = update(before, statistics(before, x, y, y.new_ones(len(y))))

    def draws(num_draws: int) -> dict[str, Tensor]:
        return draw(after, (num_draws,))

    return ExactPosterior(after._asdict(), log_evidence(before, after, len(y)), draws)
