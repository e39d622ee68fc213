"""Bayesian logistic regression: a linear score, mapped to the probability of class 1 by the sigmoid.

    w[0], …, w[d] ~ Normal(0, prior_scale²)           (w[0] is the bias: the weight of a column of ones)
    y[n] | x[n]   ~ Bernoulli(sigmoid(w[0] + x[n] · w[1:]))

======  =====  =======  ===========
symbol  site   shape    support
======  =====  =======  ===========
w       ``w``  (d + 1)  real
y       ``y``  (n)      {0, 1}
======  =====  =======  ===========

The posterior has no closed form. Two devices lead to closed-form updates: a quadratic lower bound on each row's
likelihood, exact at a score of ±ξ[n] (`cavi_steps`), and a Pólya-Gamma variable ω[n] per row, given which the
likelihood is normal in w (`gibbs_steps`, exact). They are related: the bound's λ(ξ) is half of E[ω] at c = ξ.

References
----------
1. Bishop (2006), Pattern Recognition and Machine Learning, sections 4.5 and 10.6.
2. Jaakkola and Jordan (2000), Bayesian parameter estimation via variational methods, Statistics and Computing 10.
3. Polson, Scott and Windle (2013), Bayesian inference for logistic models using Pólya-Gamma latent variables,
   JASA 108.
4. Durante and Rigon (2019), Conditionally conjugate mean-field variational Bayes for logistic models,
   Statistical Science 34: the bound is coordinate ascent over q(w) q(ω).
"""

from .._shared.scores import scores
from .cavi import QuadraticBound, cavi_steps
from .gibbs import gibbs_steps
from .model import identify, log_likelihood, model, posterior_predictive, predict, simulate

__all__ = [
    "QuadraticBound",
    "cavi_steps",
    "gibbs_steps",
    "identify",
    "log_likelihood",
    "model",
    "posterior_predictive",
    "predict",
    "scores",
    "simulate",
]
