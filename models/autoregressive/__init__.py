"""Autoregressive models of binary images: each pixel given those before it, by a masked network.

    x[n, j] | x[n, <j] ~ Bernoulli(sigmoid(f_j(x[n, <j])))          (pixels j in the network's order)

so that log p(x[n]) = Σ_j log p(x[n, j] | x[n, <j]): the chain rule, nothing integrated out and nothing bounded. One
network gives all the f_j at once. Masks on its weights see to it that f_j depends on no pixel from j on: in MADE, an
autoencoder, by degrees of the units; in PixelCNN, by convolutions that look up and to the left only.

There are no latent variables. The weights are parameters, which `guidebook.inference.svi` fits by gradients of the
likelihood (with any guide family, which then has nothing to draw), or of the posterior density if they have a prior.
The names and shapes in `Posterior.params` describe the network, so that `log_likelihood`, `generate` and the others
need nothing else.

======  ============================  ==============  ==========================================================
symbol  name                          shape           what
======  ============================  ==============  ==========================================================
x       site ``x``                    (n, d)          {0, 1}
f       ``network.logits.*``          (d, h), (d)     weight and bias of the last layer; "pixelcnn": (1, c, 1, 1)
        ``network.i.*``               (h', h), (h')   of the hidden layer i; "pixelcnn": (c', c, k, k), (c')
        ``network.direct.weight``     (d, d)          from pixels to pixels, without a hidden layer; "made"
        ``network.order``             (d)             place of each pixel in the order, from 0; "made"; a constant
======  ============================  ==============  ==========================================================

References
----------
1. Germain, Gregor, Murray and Larochelle (2015), MADE: masked autoencoder for distribution estimation, ICML.
2. Van den Oord, Kalchbrenner and Kavukcuoglu (2016), Pixel recurrent neural networks, ICML: PixelCNN, section 3.4.
3. Frey (1998), Graphical models for machine learning and digital communication: a logistic regression per pixel, which
   is MADE without hidden layers.
"""

from .maps import conditionals, generate, identify, independent, log_likelihood
from .model import model, simulate
from .networks import Pixels, log_prior, logits, masks
from .parameters import Hidden, Network, Order, starts

__all__ = [
    "Hidden",
    "Network",
    "Order",
    "Pixels",
    "conditionals",
    "generate",
    "identify",
    "independent",
    "log_likelihood",
    "log_prior",
    "logits",
    "masks",
    "model",
    "simulate",
    "starts",
]
