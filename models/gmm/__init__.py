"""Gaussian mixture: each row comes from one of K normal components, and which one is not known.

    weights            ~ Dirichlet(c, …, c)
    Σ[k]               ~ InverseWishart(ν, Λ)                 (tied: one Σ; diagonal, isotropic: inverse gammas)
    loc[k] | Σ[k]      ~ Normal(m, Σ[k] / κ)
    x[n]               ~ Σ_k weights[k] Normal(loc[k], Σ[k])  (the component's index is summed out)

The prior is conjugate, so that EM, coordinate ascent, Gibbs sampling and NUTS can all aim at one posterior.
An inverse Wishart cannot be a site under NUTS: Σ is written through the Bartlett factor of its inverse,
Σ⁻¹ = C A Aᵀ Cᵀ with C Cᵀ = Λ⁻¹ and A upper triangular, A[i, i]² ~ χ²(ν - d + 1 + i), A[i, j] ~ Normal(0, 1).

============  =====================  ==============  ===================================================
symbol        site                   shape           support
============  =====================  ==============  ===================================================
π             ``weights``            (k)             simplex
A[i, i]²      ``bartlett_diagonal``  (k, d)          positive; full, and tied with one for k
A[i, j]       ``bartlett_upper``     (k, d(d-1)/2)   real; likewise; absent if d = 1
1/σ²          ``precision``          (k, d) or (k)   positive; diagonal or isotropic
μ             ``loc``                (k, d)          real
Σ             ``covariance``         (k, d, d)       deterministic; tied (1, d, d), diagonal (k, d), isotropic (k)
x             ``x``                  (n, d)          real
============  =====================  ==============  ===================================================

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, sections 9.2 and 10.2.
2. Fraley and Raftery (2007), Bayesian regularization for normal mixture estimation and model-based clustering,
   Journal of Classification 24: the default prior.
3. Anderson (2003), An Introduction to Multivariate Statistical Analysis, section 7.2: the Bartlett factor.
4. Stephens (2000), Dealing with label switching in mixture models, JRSS B 62: matching the components.
"""

from .cavi import cavi_steps
from .covariance import Covariance
from .em import em_steps
from .exact import bic, icl, log_joint, log_joint_at, log_likelihood, posterior_predictive, responsibilities
from .gibbs import gibbs_steps
from .identify import identify
from .missing import complete, impute, observed_log_joint
from .model import latent_model, model, simulate
from .online import online_steps
from .prior import Prior, default_prior

__all__ = [
    "Covariance",
    "Prior",
    "bic",
    "cavi_steps",
    "complete",
    "default_prior",
    "em_steps",
    "gibbs_steps",
    "icl",
    "identify",
    "impute",
    "latent_model",
    "log_joint",
    "log_joint_at",
    "log_likelihood",
    "model",
    "observed_log_joint",
    "online_steps",
    "posterior_predictive",
    "responsibilities",
    "simulate",
]
