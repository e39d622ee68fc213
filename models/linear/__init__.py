"""Bayesian linear regression: a linear mean, with normal or Student noise and a normal or a horseshoe prior.

    noise_variance            ~ InverseGamma(1/2, u²/2)       (one observation's worth; u: the target's sd)
    w[0] | noise_variance     ~ Normal(m, (10 s)² noise_variance)         (the bias; m: the target's mean)
    w[j] | noise_variance     ~ Normal(0, s² noise_variance)              (s: ``prior_scale``; ``prior="normal"``)
    y[n] | x[n]               ~ Normal(w[0] + x[n] · w[1:], noise_variance)

With ``noise="student"``, y[n] is Student's t around the same mean, with ``df`` degrees of freedom and noise_variance as
its squared scale. With ``prior="horseshoe"``, most weights are near zero and a few are free, up to a slab of scale s:

    global_scale              ~ HalfCauchy(q / (1 - q) / √n)              (q: ``relevant_share``)
    local_scale[j]            ~ HalfCauchy(1)
    slab_variance             ~ InverseGamma(2, 2 s²)
    1/t[j]²                   = 1/slab_variance + 1/(global_scale local_scale[j])²
    w[j] | noise_variance     ~ Normal(0, t[j]² noise_variance)
    z[j]                      = w[j] (n + 1/t[j]²)^½ / noise_variance^½        (the site in place of w[j])

Weights are measured in the noise's sd, and the prior stands in the target's own units (`Units`): other units of y
change nothing but the units of the answer. For the same reason the posterior under normal noise and a normal prior has
a closed form, normal-inverse-gamma, and so has the evidence (`closed_form`); its mean is ridge regression at
alpha = 1/s². Student noise is normal noise with a precision ω[n] ~ Gamma(df/2, df/2) of each row's own, given which
all is as before (`gibbs_steps`, `em_steps`, `cavi_steps`).

======  ===================  =======  ====================================================
symbol  site                 shape    support
======  ===================  =======  ====================================================
w       ``w``                (d + 1)  real; under the horseshoe made of the sites below
σ²      ``noise_variance``   ()       positive
ν       ``df``               ()       positive, held; with Student noise
w[0]    ``bias``             ()       real; horseshoe
z       ``z``                (d)      real; horseshoe
λ       ``local_scale``      (d)      positive; horseshoe
τ       ``global_scale``     ()       positive, in the noise's sd; horseshoe
c²      ``slab_variance``    ()       positive, in the noise's variance; horseshoe
y       ``y``                (n)      real
======  ===================  =======  ====================================================

References
----------
1. Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013), Bayesian Data Analysis, 3rd edition, chapters 14 and 17.
2. Piironen and Vehtari (2017), Sparsity information and regularization in the horseshoe and other shrinkage priors,
   Electronic Journal of Statistics 11.
3. Lange, Little and Taylor (1989), Robust statistical modeling using the t distribution, JASA 84.
"""

from .cavi import Bound, cavi_steps
from .closed_form import closed_form
from .conjugate import NormalInverseGamma
from .em import em_steps
from .gibbs import gibbs_steps
from .model import identify, log_likelihood, model, posterior_predictive, predict, simulate
from .prior import Units, conjugate_prior, units_of

__all__ = [
    "Bound",
    "NormalInverseGamma",
    "Units",
    "cavi_steps",
    "closed_form",
    "conjugate_prior",
    "em_steps",
    "gibbs_steps",
    "identify",
    "log_likelihood",
    "model",
    "posterior_predictive",
    "predict",
    "simulate",
    "units_of",
]
