"""What probabilistic PCA and factor analysis share: rows that are a linear map of a few normal factors, plus noise.

    z[n]        ~ Normal(0, I)                        (q factors)
    x[n] | z[n] ~ Normal(loc + W z[n], Ψ)             (Ψ = σ² I, or one variance per column)
    x[n]        ~ Normal(loc, W Wᵀ + Ψ)
    z[n] | x[n] ~ Normal(C Wᵀ Ψ⁻¹ (x[n] - loc), C)    with C = (I + Wᵀ Ψ⁻¹ W)⁻¹, the same for every row

A ``sites`` argument holds ``W`` (…, d, q), ``loc`` (…, d) and ``noise_variance``, (…) if one variance serves all
columns and (…, d) otherwise: draws of any method, or a point. Only `identify` forms a d × d matrix.

References
----------
1. Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61.
2. Rubin and Thayer (1982), EM algorithms for ML factor analysis, Psychometrika 47.
3. Meng and Rubin (1993), Maximum likelihood estimation via the ECM algorithm, Biometrika 80.
4. Jöreskog (1967), Some contributions to maximum likelihood factor analysis, Psychometrika 32: Heywood cases.
"""

from .data import check, rows_and_columns, simulate
from .em import linear_gaussian_em
from .exact import FactorPosterior, identify, log_likelihood, posterior, posterior_predictive, transform
from .start import principal_axes, rough_start, starting_sites

__all__ = [
    "FactorPosterior",
    "check",
    "identify",
    "linear_gaussian_em",
    "log_likelihood",
    "posterior",
    "posterior_predictive",
    "principal_axes",
    "rough_start",
    "rows_and_columns",
    "simulate",
    "starting_sites",
    "transform",
]
