"""Estimates of the evidence log p(x) of any Pyro model: from the prior, a guide, a tempered path or posterior draws.

References
----------
1. Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders, ICLR: E L_1 ≤ E L_k ≤ log p(x).
2. Neal (2001), Annealed importance sampling, Statistics and Computing 11.
3. Grosse, Ghahramani and Adams (2015), Sandwiching the marginal likelihood using bidirectional Monte Carlo,
   arXiv:1511.02543.
4. Meng and Wong (1996), Simulating ratios of normalizing constants via a simple identity, Statistica Sinica 6.
"""

from .estimate import evidence
from .record import Evidence

__all__ = ["Evidence", "evidence"]
