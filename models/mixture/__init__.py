"""Mixture of count rows: each row comes from one of K segments, and which one is not known.

    weights           ~ Dirichlet(c, …, c)
    rate[k, d]        ~ Gamma(a[d], b[d])                       family="poisson"
    probs[k]          ~ Dirichlet(a)                            family="multinomial"
    x[n]              ~ Σ_k weights[k] Π_d Poisson(rate[k, d])  or  Σ_k weights[k] Multinomial(total[n], probs[k])

`model` has the segment's index summed out; `latent_model` keeps it as z[n] ~ Categorical(weights).
A customer's row says how often each product was bought. Poisson segments differ in how much is bought and of what;
multinomial segments differ in the proportions alone, for a row's total is taken as given.
The prior is conjugate, so that EM, coordinate ascent, Gibbs sampling and NUTS can all aim at one posterior.

======  ===========  =======  ====================================================
symbol  site         shape    support
======  ===========  =======  ====================================================
π       ``weights``  (k)      simplex
λ       ``rate``     (k, d)   positive; Poisson: expected count of column d
p       ``probs``    (k, d)   simplex a component; multinomial
z       ``z``        (n)      {0, …, k - 1}; in `latent_model` alone
x       ``x``        (n, d)   whole numbers from zero up
======  ===========  =======  ====================================================

References
----------
1. McLachlan and Peel (2000), Finite Mixture Models, chapters 2 and 5: EM, mixtures that are not normal.
2. Bishop (2006), Pattern Recognition and Machine Learning, sections 9.3 and 10.2: EM and coordinate ascent.
3. Diebolt and Robert (1994), Estimation of finite mixture distributions through Bayesian sampling, JRSS B 56: Gibbs.
4. Stephens (2000), Dealing with label switching in mixture models, JRSS B 62: matching the components.
"""

from .cavi import Statistics, cavi_steps
from .distributions import CountMixture, Counts
from .em import Expectations, em_steps
from .exact import (
    bic,
    icl,
    log_joint,
    log_likelihood,
    observed_log_joint,
    posterior_predictive,
    responsibilities,
)
from .gibbs import gibbs_steps
from .identify import identify
from .model import latent_model, model, simulate
from .online import online_steps
from .prior import Family, Prior, check_counts, default_prior

__all__ = [
    "CountMixture",
    "Counts",
    "Expectations",
    "Family",
    "Prior",
    "Statistics",
    "bic",
    "cavi_steps",
    "check_counts",
    "default_prior",
    "em_steps",
    "gibbs_steps",
    "icl",
    "identify",
    "latent_model",
    "log_joint",
    "log_likelihood",
    "model",
    "observed_log_joint",
    "online_steps",
    "posterior_predictive",
    "responsibilities",
    "simulate",
]
