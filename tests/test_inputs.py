"""What models take as data: each case of the table fits or is refused in a sentence, and the page says which."""

import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pyro
import pytest
import scipy.sparse
import torch
from pyro import poutine

from guidebook.inference import cavi, closed_form, em, gibbs
from guidebook.models import factor_analysis, gmm, lda, linear, logistic, mixture, ppca, vae
from guidebook.models._shared.inputs import rows_of
from guidebook.models._shared.memory import check_memory

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_case_of_the_table_is_as_documented() -> None:
    """In a process of its own: there the models check what they are given themselves, without beartype."""
    words = [sys.executable, "-m", "reliability.inputs", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_values_are_looked_at_once_and_again_when_they_change() -> None:
    x = torch.arange(6).reshape(3, 2)
    first = rows_of("gmm", x)
    assert first.dtype == torch.float64
    assert rows_of("gmm", x) is first
    x[0, 1] = 7
    assert rows_of("gmm", x)[0, 1] == 7
    fine = torch.ones(3, 2)
    assert rows_of("gmm", fine) is fine
    fine[2, 1] = torch.nan
    with pytest.raises(ValueError, match=r"^gmm: x is nan in row 2, column 1, and finite numbers are needed$"):
        rows_of("gmm", fine)


@pytest.mark.parametrize("rows", [8192, 8193])
def test_a_number_that_is_not_finite_is_named_wherever_it_lies(rows: int) -> None:
    x = torch.zeros(rows, 3)
    x[-1, 2] = -torch.inf
    with pytest.raises(ValueError, match=f"^ppca: x is -inf in row {rows - 1}, column 2"):
        rows_of("ppca", x)


def test_numbers_are_too_large_from_the_root_of_the_largest_on() -> None:
    for dtype, most in ((torch.float64, 1.3e154), (torch.float32, 1.8e19)):
        x = torch.full((2, 1), most, dtype=dtype)
        assert rows_of("ppca", x) is x
        with pytest.raises(ValueError, match="too large to be squared in float"):
            rows_of("ppca", 2 * x)


def test_a_traced_model_looks_at_no_values() -> None:
    """Rows that a compiled step or vmap changes are taken as they are: no branch on a value."""
    x = torch.tensor([[1.0, torch.nan]])
    assert torch.vmap(lambda row: rows_of("gmm", row[None]))(x).shape == (1, 1, 2)


def test_counts_in_a_scipy_matrix_are_taken_by_topic_models() -> None:
    counts = np.array([[3.0, 0.0, 1.0], [0.0, 2.0, 2.0], [1.0, 1.0, 0.0]])
    for method, steps in ((cavi, lda.cavi_steps(2, 1.0, 1.0)), (gibbs, lda.gibbs_steps(2, 1.0, 1.0))):
        options = {"num_restarts": 1} if method is cavi else {"num_draws": 8, "num_warmup": 4, "progress": False}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # eight draws are too few to judge
            found = [method(steps, x, **options).draws for x in (scipy.sparse.csr_matrix(counts), torch.tensor(counts))]
        assert torch.equal(found[0]["topic_words"], found[1]["topic_words"])


def test_more_topics_than_memory_holds_are_refused_before_they_are_made() -> None:
    x = torch.tensor([[3.0, 0.0, 1.0], [0.0, 2.0, 2.0]])
    many = 10**12
    for call in (
        lambda: cavi(lda.cavi_steps(many), x),
        lambda: gibbs(lda.gibbs_steps(many), x, progress=False),
        lambda: lda.model(x, num_topics=many),
    ):
        with pytest.raises(ValueError, match=r"^lda: num_topics=\d+ takes about [\de.+]+ GB, and .* GB are free$"):
            call()
    check_memory("lda", "num_topics=2", 10)


def test_a_variance_beyond_what_an_exponential_holds_starts_a_decoder_at_it() -> None:
    """softplus(bias) + floor is each column's variance, also where exp(variance) overflows."""
    for scale in (1.0, 1e3, 1e60):
        x = scale * torch.randn(50, 3, dtype=torch.float64)
        trace = poutine.trace(vae.model).get_trace(x, likelihood="gaussian", hidden=4)
        variance = torch.nn.functional.softplus(trace.nodes["decoder.variance.bias"]["value"]) + 1e-4
        torch.testing.assert_close(variance, x.var(0, correction=0), rtol=1e-6, atol=0)
        pyro.clear_param_store()


def _wide(scale: float, offset: float, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Data moved and scaled in a dtype, and the same numbers moved and scaled back in float64, without loss."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 4, generator=generator, dtype=torch.float64)
    z[30:] += 8
    x = z @ torch.tensor([[2.0, -1.0, 1.5, 0.7]]).double() + torch.tensor([0.3, 0.5, 0.4, 0.6]).double() * noise
    moved = (x * scale + offset).to(dtype)
    return moved, (moved.double() - offset) / scale


SHIFTS = [
    (1.0, 1e8, torch.float64),
    (1.0, 1e6, torch.float32),
    (1e-100, 0.0, torch.float64),
    (1e100, 0.0, torch.float64),
]


@pytest.mark.parametrize(("scale", "offset", "dtype"), SHIFTS)
def test_units_of_factor_models_change_nothing_but_units(scale: float, offset: float, dtype: torch.dtype) -> None:
    moved, plain = _wide(scale, offset, dtype)
    for fit in (
        partial(closed_form, ppca.maximum_likelihood),
        partial(em, ppca.em_steps(2), num_restarts=2),
        partial(em, factor_analysis.em_steps(1), num_restarts=2),
    ):
        theirs, ours = fit(moved).params, fit(plain).params
        covariance = [p["W"] @ p["W"].mT + torch.diag(p["noise_variance"].expand(4)) for p in (theirs, ours)]
        torch.testing.assert_close(covariance[0] / scale**2, covariance[1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close((theirs["loc"] - offset) / scale, ours["loc"], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("scale", "offset", "dtype"), SHIFTS)
def test_units_of_a_gaussian_mixture_change_nothing_but_units(scale: float, offset: float, dtype: torch.dtype) -> None:
    moved, plain = _wide(scale, offset, dtype)
    for covariance in ("full", "tied", "diagonal", "isotropic"):
        for map in (False, True):
            steps = gmm.em_steps(2, covariance, map=map)
            theirs, ours = (em(steps, x, num_restarts=4).params for x in (moved, plain))
            order = [params["loc"][:, 0].argsort() for params in (theirs, ours)]
            for name, unit in (("weights", 1.0), ("covariance", scale**2)):
                values = [params[name] for params in (theirs, ours)]
                if not (covariance == "tied" and name == "covariance"):
                    values = [value[index] for value, index in zip(values, order, strict=True)]
                torch.testing.assert_close(values[0] / unit, values[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_a_prior_about_zero_stays_there_if_rows_are_taken_about_their_mean(scale: float) -> None:
    """The maximum of the log joint density is a stationary point of the model, however far the data lie from zero."""
    moved, _ = _wide(1.0, 40.0)
    for module, size in ((ppca, 2), (factor_analysis, 1)):
        found = em(module.em_steps(size, True, scale), moved, num_restarts=1, tol=1e-12).params
        sites = {name: value.clone().requires_grad_() for name, value in found.items()}
        model = poutine.condition(module.model, sites)
        trace = poutine.trace(model).get_trace(moved, latent_dim=size, prior_scale=scale)
        for name, gradient in zip(sites, torch.autograd.grad(trace.log_prob_sum(), list(sites.values())), strict=True):
            assert float((gradient * sites[name]).detach().abs().max()) < 1e-2, name


def test_collinear_columns_are_refused_where_digits_are_lost_and_not_before() -> None:
    x, y, _ = logistic.simulate(80, num_features=2)
    _, z, _ = linear.simulate(80, num_features=2)
    for offset, fine in ((1e3, True), (1e8, False)):
        moved = x + offset
        for fit in (
            lambda x: cavi(logistic.cavi_steps(), x, y, num_restarts=1),
            lambda x: closed_form(linear.closed_form, x, z),
            lambda x: cavi(linear.cavi_steps(), x, z, num_restarts=1),
        ):
            if fine:
                assert torch.isfinite(next(iter(fit(moved).draws.values()))).all()
            else:
                with pytest.raises(ValueError, match="fewer than six digits of the weights can be computed"):
                    fit(moved)


def test_units_of_features_and_target_change_a_regression_by_their_ratio() -> None:
    """Under a prior in units of the noise: y in other units scales weights and noise, exactly."""
    x, y, _ = linear.simulate(60, num_features=2)
    plain = closed_form(linear.closed_form, x, y).params
    for unit in (1e-100, 1e100):
        scaled = closed_form(linear.closed_form, x, unit * y).params
        torch.testing.assert_close(scaled["mean"] / unit, plain["mean"], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(scaled["rate"] / unit / unit, plain["rate"], rtol=1e-6, atol=0)


def test_counts_past_those_that_can_be_told_apart_are_refused() -> None:
    for count, fine in ((2.0**53, True), (2.0**53 + 2, False)):
        x = torch.tensor([[count, 1.0], [2.0, 1.0]], dtype=torch.float64)
        for check in (mixture.check_counts, lda.check_counts):
            if fine:
                check(x)
            else:
                with pytest.raises(ValueError, match=r"to 2\^53 at most"):
                    check(x)
