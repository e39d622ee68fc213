"""What probabilistic PCA and factor analysis share: rows that are a linear map of a few normal factors, plus noise.

    z[n]        ~ Normal(0, I)                        (q factors)
    x[n] | z[n] ~ Normal(loc + W z[n], Ψ)             (Ψ = σ² I, or one variance per column)
    x[n]        ~ Normal(loc, W Wᵀ + Ψ)
    z[n] | x[n] ~ Normal(C Wᵀ Ψ⁻¹ (x[n] - loc), C)    with C = (I + Wᵀ Ψ⁻¹ W)⁻¹, the same for every row

A ``sites`` argument holds ``W`` (…, d, q), ``loc`` (…, d) and ``noise_variance``, (…) if one variance serves all
columns and (…, d) otherwise: draws of any method, or a point. Only `identify` forms a d × d matrix, and
`overview` replaces it if there are many columns.

References are those of `ppca` and `factor_analysis`; besides, Meng and Rubin (1993), Maximum likelihood estimation via
the ECM algorithm, Biometrika 80.
"""

from .data import check, checked_size, simulate
from .em import e_step, em_steps, prepared
from .evidence import laplace_evidence
from .exact import FactorPosterior, identify, log_likelihood, overview, posterior, posterior_predictive, transform
from .latent import latent_model
from .missing import complete, em_steps_with_gaps, given_seen, impute
from .start import principal_axes, starting_sites

__all__ = [
    "FactorPosterior",
    "check",
    "checked_size",
    "complete",
    "e_step",
    "em_steps",
    "em_steps_with_gaps",
    "given_seen",
    "identify",
    "impute",
    "laplace_evidence",
    "latent_model",
    "log_likelihood",
    "overview",
    "posterior",
    "posterior_predictive",
    "prepared",
    "principal_axes",
    "simulate",
    "starting_sites",
    "transform",
]
