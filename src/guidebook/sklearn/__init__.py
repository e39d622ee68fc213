"""The collection's models as scikit-learn estimators: fitted by any of their methods, used as scikit-learn's are.

An estimator has the arguments, methods and attributes of its counterpart there, as far as they go together:
`GaussianMixture`; `PCA` and `FactorAnalysis`; `LatentDirichletAllocation`; `LogisticRegression` and `BayesianRidge`.
Besides, ``method`` chooses how to fit, as on the command line ("em", "gibbs", "svi:full_rank", …), and ``posterior_``
is the result: predictions are averaged over its draws.
"""

from .factors import PPCA, FactorAnalysis
from .mixtures import GaussianMixture, PoissonMixture
from .regression import BayesianLinearRegression, BayesianLogisticRegression
from .topics import LDA

__all__ = [
    "LDA",
    "PPCA",
    "BayesianLinearRegression",
    "BayesianLogisticRegression",
    "FactorAnalysis",
    "GaussianMixture",
    "PoissonMixture",
]
