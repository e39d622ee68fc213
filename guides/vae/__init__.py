"""Guides of the variational autoencoder: what is known of a row's factors, from the row by a network or one by one.

    z[n] ~ Normal(m(x[n]), diag s(x[n])²)              `encoder`
    z[n] ~ Normal(m(x[n]), L(x[n]) L(x[n])ᵀ)           `full_covariance_encoder`
    z[n] = T(u[n], x[n]), u[n] as z[n] in `encoder`    `flow_encoder`
    z[n] ~ Normal(m[n], diag s[n]²), m and s from `encoder`'s by a few gradient steps: `semi_amortised`
    z[n] ~ Normal(m[n], diag s[n]²), all of them parameters: `factors`

The networks see rows less their mean in the data that the parameters were made from, over one scale for all columns;
hidden layers end in tanh. Options are the model's, by the model's names.

References
----------
1. Kingma and Welling (2014), Auto-encoding variational Bayes, ICLR.
2. Dinh, Sohl-Dickstein and Bengio (2017), Density estimation using Real NVP, ICLR.
3. Kim, Wiseman, Miller, Sontag and Rush (2018), Semi-amortized variational autoencoders, ICML.
4. Cremer, Li and Duvenaud (2018), Inference suboptimality in variational autoencoders, ICML: amortisation gap.
"""

from .amortised import encoder, flow_encoder, full_covariance_encoder
from .by_row import factors, semi_amortised

__all__ = ["encoder", "factors", "flow_encoder", "full_covariance_encoder", "semi_amortised"]
