"""scikit-learn's own checks of estimators, and what users of scikit-learn do with them."""

import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from guidebook.inference import Posterior
from guidebook.sklearn import (
    LDA,
    PPCA,
    BayesianLinearRegression,
    BayesianLogisticRegression,
    FactorAnalysis,
    GaussianMixture,
    PoissonMixture,
)

EQUIVALENCE = "check_sample_weight_equivalence_on_dense_data"  # what it should show, test_sklearn_weights.py does
REASONS = {
    "GaussianMixture": "its 30 columns are more than its 15 rows: such a likelihood is unbounded, and refused",
    "PoissonMixture": "its data are no counts, whatever the tags say",
    "FactorAnalysis": "its 30 columns are more than its 15 rows: a Heywood case, which EM nears but does not reach",
}


def expected_failures(estimator) -> dict[str, str]:
    reason = REASONS.get(type(estimator).__name__)
    return {EQUIVALENCE: reason} if reason else {}


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        GaussianMixture(),
        PoissonMixture(),
        PPCA(),
        PPCA(method="closed_form"),
        FactorAnalysis(),
        LDA(n_components=2),
        BayesianLogisticRegression(method="cavi"),
        BayesianLinearRegression(),
    ],
    expected_failed_checks=expected_failures,
)
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)


def test_a_pipeline_names_its_columns_and_survives_cloning_and_pickling() -> None:
    x = load_wine(as_frame=True).data
    pipeline = make_pipeline(StandardScaler(), PPCA(n_components=3, random_state=0)).set_output(transform="pandas")
    found = pipeline.fit_transform(x)
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns) == ["ppca0", "ppca1", "ppca2"]
    assert list(pipeline[-1].feature_names_in_) == list(x.columns)
    again = clone(pipeline).fit(x).transform(x)
    np.testing.assert_allclose(again, found)
    restored = pickle.loads(pickle.dumps(pipeline))
    np.testing.assert_array_equal(restored.transform(x), found)
    assert isinstance(restored[-1].posterior_, Posterior)


def test_a_search_finds_how_many_components_there_are() -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 8])
    rng.shuffle(x)
    search = GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1, 2, 3]}, cv=3, error_score="raise")
    assert search.fit(x).best_params_ == {"n_components": 2}


def test_inverse_transform_returns_to_the_plane() -> None:
    x = load_iris().data
    found = PPCA(n_components=3, random_state=0).fit(x)
    assert np.abs(found.inverse_transform(found.transform(x)) - x).max() < 0.6
    np.testing.assert_allclose(found.get_precision() @ found.get_covariance(), np.eye(4), atol=1e-9)


X = np.random.default_rng(0).normal(size=(30, 3))
Y = X[:, 0] > 0


@pytest.mark.parametrize(
    ("estimator", "sentence"),
    [
        (GaussianMixture(0), "GaussianMixture: n_components must be a whole number from 1 up, got 0"),
        (GaussianMixture(40), "GaussianMixture: n_components=40 is more than the 30 rows"),
        (GaussianMixture(2, covariance_type="round"), "GaussianMixture: covariance_type must be one of full, tied"),
        (GaussianMixture(2, method="emm"), "GaussianMixture: unknown method 'emm': did you mean em?"),
        (
            GaussianMixture(2, method="closed_form"),
            "GaussianMixture: gmm has no closed_form: the likelihood has no",
        ),
        (GaussianMixture(2, method="gibbs", tol=1e-3), "GaussianMixture: gibbs takes no tol: leave it out"),
        (GaussianMixture(2, method="gibbs", max_iter=9), "GaussianMixture: gibbs takes no max_iter: leave it out"),
        (GaussianMixture(2, options={"num_chains": 2}), "GaussianMixture: em takes no num_chains: leave it out"),
        (GaussianMixture(2, options={"mpa": True}), "GaussianMixture: unknown option of gmm 'mpa': did you mean map"),
        (GaussianMixture(2, tol=-1.0), "GaussianMixture: em: tol must be positive"),
        (PPCA(3), "PPCA: ppca: latent_dim must lie between 1 and one less than the number of columns, 3; got 3"),
        (FactorAnalysis(method="cavi"), "FactorAnalysis: factor_analysis has no cavi"),
        (LDA(2, doc_topic_prior=-1.0), "LDA: lda: alpha must be positive"),
        (BayesianLogisticRegression(-1.0, method="cavi"), "BayesianLogisticRegression: logistic: prior_scale must be"),
        (BayesianLinearRegression(prior="horseshoe"), "BayesianLinearRegression: linear has no closed_form"),
    ],
)
def test_a_mistake_gets_one_sentence(estimator, sentence: str) -> None:
    x = np.abs(X).round() if isinstance(estimator, LDA) else X
    with pytest.raises(ValueError, match="^" + sentence.replace("(", r"\(")) as error:
        estimator.fit(x, Y.astype(float))
    assert "\n" not in str(error.value)


def test_what_a_method_cannot_take_is_said() -> None:
    gaps = X.copy()
    gaps[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"GaussianMixture: sample_weight needs method='em', and method is 'gibbs'"):
        GaussianMixture(method="gibbs").fit(X, sample_weight=np.ones(30))
    with pytest.raises(ValueError, match=r"GaussianMixture: missing values \(NaN\) need method='em', and method is"):
        GaussianMixture(method="gibbs").fit(gaps)
    with pytest.raises(ValueError, match=r"PPCA: missing values \(NaN\) need method='em', and method is 'closed_form'"):
        PPCA(method="closed_form").fit(gaps)
    with pytest.raises(ValueError, match=r"GaussianMixture: gmm: column 1 has no value"):
        GaussianMixture().fit(np.where(np.arange(3) == 1, np.nan, X))
    with pytest.raises(ValueError, match=r"GaussianMixture: gmm: weights must be numbers from zero up"):
        GaussianMixture().fit(X, sample_weight=np.full(30, -1.0))
    with pytest.raises(ValueError, match=r"bic is for method='em', and method is 'cavi'"):
        GaussianMixture(method="cavi").fit(X).bic(X)


def test_too_few_iterations_and_heywood_cases_are_warned_of() -> None:
    with pytest.warns(ConvergenceWarning, match="^GaussianMixture: 1 iterations were not enough"):
        found = GaussianMixture(2, max_iter=1).fit(X)
    assert not found.converged_
    with pytest.warns(ConvergenceWarning, match="^FactorAnalysis: the uniqueness of column"):
        FactorAnalysis(2, random_state=0).fit(load_iris().data)


@pytest.mark.slow
def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "sklearn.md").read_text()
    scope: dict = {"__name__": "page"}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(snippet, "docs/sklearn.md", "exec"), scope)
    assert scope["search"].best_params_ == {"gaussianmixture__n_components": 3}
    assert "drew 500 in each of 2 chains" in capsys.readouterr().out
