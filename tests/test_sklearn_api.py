"""scikit-learn's own checks of estimators."""

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from guidebook.sklearn import (
    LDA,
    PPCA,
    BayesianLinearRegression,
    BayesianLogisticRegression,
    FactorAnalysis,
    GaussianMixture,
    PoissonMixture,
)

ESTIMATORS = [
    GaussianMixture(),
    PoissonMixture(),
    PPCA(),
    FactorAnalysis(),
    LDA(n_components=2),
    BayesianLogisticRegression(method="cavi"),
    BayesianLinearRegression(),
]


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(ESTIMATORS)
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)
