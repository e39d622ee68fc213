"""Guides of the variational autoencoder: the distribution of a row's factors, by a network or row by row.

    z[n] ~ Normal(m(x[n]), diag s(x[n])²)              `encoder`
    z[n] ~ Normal(m(x[n]), L(x[n]) L(x[n])ᵀ)           `full_covariance_encoder`
    z[n] = T(u[n], x[n]), u[n] as z[n] in `encoder`    `flow_encoder`
    z[n] ~ Normal(m[n], diag s[n]²)                    `factors`: all m and s are parameters

and one family, which takes the model: `semi_amortised`, `encoder`'s normals after a few gradient steps per row. The
networks are those of `guidebook.models.vae`; options have the model's names.

References
----------
1. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.
2. Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
3. Kim, Wiseman, Miller, Sontag and Rush (2018), Semi-amortized variational autoencoders, ICML.
4. Cremer, Li and Duvenaud (2018), Inference suboptimality in variational autoencoders, ICML: amortisation gap.
"""

from ..linear_gaussian import factors
from .encoders import encoder, full_covariance_encoder
from .flow import flow_encoder
from .semi_amortised import semi_amortised

__all__ = ["encoder", "factors", "flow_encoder", "full_covariance_encoder", "semi_amortised"]
