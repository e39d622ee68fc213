"""Missing values filled in by a model: against normals conditioned by hand, and data whose gaps are known."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from guidebook.inference import em
from guidebook.models import factor_analysis, gmm, ppca
from guidebook.models.gmm import missing as of_gmm
from guidebook.models.linear_gaussian import missing as of_factors

NAN = float("nan")


def with_gaps(x: torch.Tensor, share: float, seed: int = 0) -> torch.Tensor:
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    return torch.where(gone, NAN, x)


def conditional_mean(loc: np.ndarray, covariance: np.ndarray, row: np.ndarray) -> np.ndarray:
    gone = np.isnan(row)
    across = covariance[np.ix_(gone, ~gone)] @ np.linalg.inv(covariance[np.ix_(~gone, ~gone)])
    filled = row.copy()
    filled[gone] = loc[gone] + across @ (row[~gone] - loc[~gone])
    return filled


@pytest.mark.parametrize("module", [ppca, factor_analysis])
def test_factors_fill_gaps_as_the_normal_they_imply_does(module) -> None:
    x, truth = module.simulate(40, latent_dim=2, num_features=6, seed=1)
    gaps = with_gaps(x, 0.3)
    gaps[0] = NAN
    noise = truth["noise_variance"].expand(6)
    covariance = (truth["W"] @ truth["W"].mT + torch.diag(noise)).numpy()
    expected = np.stack([conditional_mean(truth["loc"].numpy(), covariance, row) for row in gaps.numpy()])
    np.testing.assert_allclose(of_factors.complete(truth, gaps).numpy(), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("covariance", ["full", "tied", "diagonal", "isotropic"])
def test_a_mixture_fills_gaps_by_its_components_in_proportion(covariance: str) -> None:
    generator = torch.Generator().manual_seed(3)
    root = torch.randn(2, 3, 3, generator=generator, dtype=torch.float64)
    full = root @ root.mT + torch.eye(3)
    sigma = {"full": full, "tied": full[:1], "diagonal": full.diagonal(dim1=-2, dim2=-1), "isotropic": full[:, 0, 0]}
    weights, loc = torch.tensor([0.3, 0.7]).double(), torch.tensor([[0.0, 1, 2], [1, -1, 0]]).double()
    sites = {"weights": weights, "loc": loc, "covariance": sigma[covariance]}
    x = with_gaps(torch.randn(30, 3, generator=generator, dtype=torch.float64), 0.4)
    filled = of_gmm.complete(sites, x).numpy()
    matrices = [gmm.covariance.as_matrices(sites["covariance"], loc).expand(2, 3, 3)[k].numpy() for k in range(2)]
    for row, found in zip(x.numpy(), filled, strict=True):
        seen = ~np.isnan(row)
        density = np.array(
            [
                w * (multivariate_normal(m[seen], s[np.ix_(seen, seen)]).pdf(row[seen]) if seen.any() else 1.0)
                for w, m, s in zip(weights.numpy(), loc.numpy(), matrices, strict=True)
            ]
        )
        means = np.stack([conditional_mean(m, s, row) for m, s in zip(loc.numpy(), matrices, strict=True)])
        np.testing.assert_allclose(found, density / density.sum() @ means, rtol=1e-8, atol=1e-8)


def test_imputing_one_normal_is_little_and_rubins_em() -> None:
    """With one component the maximum is a normal's; its stationarity is that of the observed likelihood."""
    x, _ = factor_analysis.simulate(80, latent_dim=1, num_features=3, seed=4)
    gaps = with_gaps(x, 0.25, seed=5)
    start = {
        "weights": torch.ones(1).double(),
        "loc": torch.zeros(1, 3).double(),
        "covariance": torch.eye(3)[None].double(),
    }
    filled = of_gmm.impute(start, gaps, tol=1e-12).numpy()
    loc = torch.tensor(np.nanmean(filled, 0), requires_grad=True)
    free = torch.tensor(np.linalg.cholesky(np.cov(filled.T)), requires_grad=True)
    optimum = torch.optim.LBFGS([loc, free], lr=1, max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def negative() -> torch.Tensor:
        optimum.zero_grad()
        covariance = free @ free.mT
        total = torch.zeros((), dtype=torch.float64)
        for row in gaps:
            seen = ~row.isnan()
            if seen.any():
                normal = torch.distributions.MultivariateNormal(loc[seen], covariance[seen][:, seen])
                total = total - normal.log_prob(row[seen])
        total.backward()
        return total

    optimum.step(negative)
    covariance = (free @ free.mT).detach().numpy()
    expected = np.stack([conditional_mean(loc.detach().numpy(), covariance, row) for row in gaps.numpy()])
    np.testing.assert_allclose(filled, expected, atol=2e-3)


@pytest.mark.parametrize(("module", "shared"), [(ppca, True), (factor_analysis, False)])
def test_imputing_by_factors_comes_near_the_truth(module, shared: bool) -> None:
    """Errors are those of the model that made the data, and a quarter of what column means leave."""
    x, truth = module.simulate(400, latent_dim=2, num_features=12, seed=2)
    truth["noise_variance"] = truth["noise_variance"] / 20
    generator = torch.Generator().manual_seed(0)
    noise = truth["noise_variance"].sqrt() * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    x = truth["loc"] + truth["z"] @ truth["W"].mT + noise
    gaps = with_gaps(x, 0.2)
    gone = gaps.isnan()
    start = ppca.starting_sites(torch.where(gone, gaps.nanmean(0), gaps), 2, shared_noise=shared)
    filled = of_factors.impute(start, gaps, shared_noise=shared)
    assert torch.equal(filled[~gone], x[~gone])

    def error(values: torch.Tensor) -> float:
        return float((values - x)[gone].square().mean().sqrt())

    best = error(of_factors.complete(truth, gaps))
    assert error(filled) < 1.1 * best
    assert error(filled) < 0.25 * error(torch.where(gone, gaps.nanmean(0), gaps))


@pytest.mark.parametrize(("module", "shared"), [(ppca, True), (factor_analysis, False)])
def test_imputing_by_factors_is_at_the_maximum_of_what_is_observed(module, shared: bool) -> None:
    """The likelihood of the observed entries is climbed by another optimiser, with each row's own normal."""
    x, _ = module.simulate(80, latent_dim=1, num_features=4, seed=7)
    gaps = with_gaps(x, 0.25, seed=8)
    filled = torch.where(gaps.isnan(), gaps.nanmean(0), gaps)
    start = ppca.starting_sites(filled, 1, shared_noise=shared)
    ours = of_factors.impute(start, gaps, shared_noise=shared, num_steps=20_000, tol=1e-13)
    W, loc = (start[name].clone().requires_grad_() for name in ("W", "loc"))
    log_noise = start["noise_variance"].log().clone().requires_grad_()
    optimum = torch.optim.LBFGS([W, loc, log_noise], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def negative() -> torch.Tensor:
        optimum.zero_grad()
        covariance = W @ W.mT + torch.diag(log_noise.exp().expand(4))
        normals = torch.distributions.MultivariateNormal
        rows = [(row, ~row.isnan()) for row in gaps if not row.isnan().all()]
        total = -sum(normals(loc[o], covariance[o][:, o]).log_prob(row[o]) for row, o in rows)
        assert isinstance(total, torch.Tensor)
        total.backward()
        return total

    optimum.step(negative)
    point = {"W": W.detach(), "loc": loc.detach(), "noise_variance": log_noise.detach().exp()}
    torch.testing.assert_close(ours, of_factors.complete(point, gaps), atol=2e-3, rtol=0)


@pytest.mark.parametrize(("offset", "dtype"), [(1e6, torch.float32), (1e8, torch.float64)])
def test_an_offset_changes_no_estimate_from_rows_with_gaps(offset: float, dtype: torch.dtype) -> None:
    """Of the same numbers moved, without loss; EM stops where a relative error e of a variance costs n e² / 4 nats."""
    moved = with_gaps(ppca.simulate(200, latent_dim=1, num_features=4, seed=2)[0].add(offset).to(dtype), 0.1)
    for module, error in ((ppca, 1e-6), (factor_analysis, 2e-5)):
        steps = module.em_steps(1, missing=True)
        fits = [em(steps, x, num_restarts=1, tol=1e-10, num_steps=2000) for x in (moved, moved.double() - offset)]
        theirs, ours = (fit.params["W"] @ fit.params["W"].mT for fit in fits)
        torch.testing.assert_close(theirs, ours, rtol=error, atol=error)
        torch.testing.assert_close(fits[0].params["loc"] - offset, fits[1].params["loc"], rtol=0, atol=1e-6)
        assert fits[0].info.log_likelihood == pytest.approx(fits[1].info.log_likelihood, abs=1e-6)
