"""Variational autoencoder: rows decoded by a network from a few normal factors each.

    z[n]        ~ Normal(0, I)                                       (q factors, which cannot be integrated out)
    x[n] | z[n] ~ Bernoulli(sigmoid(f(z[n])))                        likelihood="bernoulli"
    x[n] | z[n] ~ Normal(f(z[n]), diag(v(z[n])))                     likelihood="gaussian"
    x[n] | z[n] ~ Normal(f(z[n]), σ² I)                              the same with shared_variance=True

f and v are two heads of one network, the decoder, whose weights are parameters of the model. `guidebook.inference.svi`
fits them together with those of a guide (`guidebook.guides.vae`): that is the variational autoencoder. A linear decoder
with one variance is exactly probabilistic PCA. The names and shapes in `Posterior.params` describe the networks, so
that `decode`, `generate`, `log_likelihood` and the others need nothing else.

======  ======================  ===========  ==============================================================
symbol  name                    shape        what
======  ======================  ===========  ==============================================================
z       site ``z``              (n, q)       real
x       site ``x``              (n, d)       {0, 1}, or real
f       ``decoder.logits.*``    (d, h), (d)  weight and bias of the last layer; Bernoulli
f       ``decoder.mean.*``      (d, h), (d)  likewise; Gaussian
v       ``decoder.variance.*``  (d, h), (d)  likewise, before softplus; one variance per column and row
σ²      ``decoder.noise``       ()           positive; with ``shared_variance``
        ``decoder.i.*``                      weight and bias of the hidden layer i, from z outwards
======  ======================  ===========  ==============================================================

References
----------
1. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.
2. Rezende, Mohamed and Wierstra (2014), Stochastic backpropagation and approximate inference in deep generative
   models, ICML.
3. Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR: bounds, active units.
4. Tipping and Bishop (1999), Probabilistic principal component analysis, JRSS B 61.
"""

from .bounds import elbo, kl_per_unit, log_likelihood
from .maps import Moments, decode, encode, generate, generated_moments, identify, manifold, reconstruct
from .model import latent_model, model, simulate
from .networks import encoded, features, latent_dim_of, normal
from .parameters import Head, Hidden, Network, encoder_start, glorot
from .pixels import binarise, dequantise

__all__ = [
    "Head",
    "Hidden",
    "Moments",
    "Network",
    "binarise",
    "decode",
    "dequantise",
    "elbo",
    "encode",
    "encoded",
    "encoder_start",
    "features",
    "generate",
    "generated_moments",
    "glorot",
    "identify",
    "kl_per_unit",
    "latent_dim_of",
    "latent_model",
    "log_likelihood",
    "manifold",
    "model",
    "normal",
    "reconstruct",
    "simulate",
]
