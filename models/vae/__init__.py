"""Variational autoencoder: rows decoded by a network from a few normal factors each.

    z[n]        ~ Normal(0, I)                                       (q factors, drawn: there is no sum over them)
    x[n] | z[n] ~ Bernoulli(sigmoid(f(z[n])))                        likelihood="bernoulli"
    x[n] | z[n] ~ Normal(f(z[n]), diag(v(z[n])))                     likelihood="gaussian"
    x[n] | z[n] ~ Normal(f(z[n]), σ² I)                              the same with shared_variance=True

f and v are two heads of one network, the decoder, whose weights are parameters of the model: `guidebook.inference.svi`
fits them together with the guide (`guidebook.guides.vae`), which is the variational autoencoder. A linear decoder with
one variance is probabilistic PCA, exactly. What a fit has learned, `Posterior.params`, says by names and shapes what
networks they belong to, and so is all that `decode`, `generate`, `log_likelihood` and the others need.

======  ======================  ===========  ==============================================================
symbol  name                    shape        what
======  ======================  ===========  ==============================================================
z       site ``z``              (n, q)       real
x       site ``x``              (n, d)       {0, 1}, or real
f       ``decoder.logits.*``    (d, h), (d)  weight and bias of the last layer; Bernoulli
f       ``decoder.mean.*``      (d, h), (d)  likewise; Gaussian
v       ``decoder.variance.*``  (d, h), (d)  likewise, before softplus; a variance a column and row
σ²      ``decoder.noise``       ()           positive; with ``shared_variance``
        ``decoder.i.*``                      weight and bias of the hidden layer i, from z outwards
======  ======================  ===========  ==============================================================

References
----------
1. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.
2. Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation and approximate inference in deep generative
   models, ICML.
3. Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR.
4. Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61.
"""

from . import linear_1d
from .bounds import elbo, kl_per_unit, log_likelihood
from .maps import Moments, decode, encode, generate, generated_moments, identify, interpolate, manifold, reconstruct
from .model import latent_model, model, simulate
from .networks import latent_dim_of
from .pixels import binarise, dequantise, redrawn, with_intensity

__all__ = [
    "Moments",
    "binarise",
    "decode",
    "dequantise",
    "elbo",
    "encode",
    "generate",
    "generated_moments",
    "identify",
    "interpolate",
    "kl_per_unit",
    "latent_dim_of",
    "latent_model",
    "linear_1d",
    "log_likelihood",
    "manifold",
    "model",
    "reconstruct",
    "redrawn",
    "simulate",
    "with_intensity",
]
