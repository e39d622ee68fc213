"""Formulas that lectures print wrong: each printed one is shown to fail, and the right one to hold, on small cases.

That of probabilistic PCA's posterior covariance is in test_ppca.py.
"""

import itertools
import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from scipy import integrate
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.func import grad
from zoo import latent

from guidebook.inference.optim.minibatch import row_scale
from guidebook.models import gmm, mixture, ppca

K, D = 3, 2


@pytest.fixture(scope="module")
def x() -> Tensor:
    return gmm.simulate(60, num_components=K, num_features=D, seed=1)[0]


@pytest.fixture(scope="module")
def sites(x: Tensor) -> dict[str, Tensor]:
    """Parameters of an isotropic mixture, not at an optimum."""
    return {
        "weights": torch.tensor([0.5, 0.3, 0.2], dtype=x.dtype),
        "loc": x[[0, 20, 40]] + 0.3,
        "covariance": torch.tensor([0.8, 1.5, 0.4], dtype=x.dtype),
    }


def complete(x: Tensor, r: Tensor):
    """Q as a function of (weights, loc, sd), written out: Σ r [log π - D/2 log 2πσ² - ‖x - μ‖² / 2σ²]."""

    def q(weights: Tensor, loc: Tensor, sd: Tensor) -> Tensor:
        square = (x[:, None] - loc).square().sum(-1)
        return (r * (weights.log() - D / 2 * torch.log(2 * math.pi * sd**2) - square / (2 * sd**2))).sum()

    return q


# ---------------------------------------------------------------------------------------------------- mixtures and EM


def test_responsibilities_have_the_evidence_below_the_line(x: Tensor, sites: dict[str, Tensor]) -> None:
    """p(z | x) = p(x | z) p(z) / p(x); printed: p(z | x) p(x) / p(z). The densities are written out here."""
    square = (x[:, None] - sites["loc"]).square().sum(-1)
    variance, prior = sites["covariance"], sites["weights"]
    likelihood = (-square / (2 * variance)).exp() / (2 * math.pi * variance) ** (D / 2)
    evidence = (likelihood * prior).sum(-1, keepdim=True)
    right = likelihood * prior / evidence
    printed = right * evidence / prior
    torch.testing.assert_close(gmm.responsibilities(sites, x), right)
    torch.testing.assert_close(right.sum(-1), torch.ones(60, dtype=x.dtype))
    assert (printed.sum(-1) - 1).abs().min() > 0.1


def test_the_derivative_of_q_in_a_mean_points_to_the_data(x: Tensor, sites: dict[str, Tensor]) -> None:
    """∂Q/∂μ = + Σ r (x - μ) / σ²; printed with a minus."""
    r, sd = gmm.responsibilities(sites, x), sites["covariance"].sqrt()
    derivative = grad(complete(x, r), argnums=1)(sites["weights"], sites["loc"], sd)
    right = (r[:, :, None] * (x[:, None] - sites["loc"])).sum(0) / sd[:, None] ** 2
    torch.testing.assert_close(derivative, right)
    assert (derivative + right).abs().max() > 1  # what is left of the printed one


def test_the_derivative_of_the_likelihood_in_a_mean_and_in_a_weight(x: Tensor, sites: dict[str, Tensor]) -> None:
    """∂L/∂μ = Σ r Σ⁻¹ (x - μ), printed as ∂L/∂π; ∂L/∂π = Σ r / π, which with the multiplier gives π = N_k / N."""

    def likelihood(weights: Tensor, loc: Tensor) -> Tensor:
        return gmm.log_likelihood(sites | {"weights": weights, "loc": loc}, x).sum()

    r = gmm.responsibilities(sites, x)
    by_weight, by_mean = grad(likelihood, argnums=(0, 1))(sites["weights"], sites["loc"])
    printed = (r[:, :, None] * (x[:, None] - sites["loc"])).sum(0) / sites["covariance"][:, None]
    torch.testing.assert_close(by_mean, printed)
    assert by_weight.shape != printed.shape
    torch.testing.assert_close(by_weight, r.sum(0) / sites["weights"])
    steps = gmm.em_steps(K, "isotropic")
    after = steps.m_step(steps.e_step(sites, x), x)["weights"]
    torch.testing.assert_close(after, r.sum(0) / len(x))
    multiplier = (r.sum(0) / after)[0]
    torch.testing.assert_close(r.sum(0) / after - multiplier, torch.zeros(K, dtype=x.dtype))


def test_the_derivative_of_q_in_a_standard_deviation_is_not_that_in_a_variance(
    x: Tensor, sites: dict[str, Tensor]
) -> None:
    """Σ r [-D/σ + ‖x - μ‖²/σ³] is ∂Q/∂σ, printed as ∂Q/∂σ²; both vanish at the same σ."""
    r, sd = gmm.responsibilities(sites, x), sites["covariance"].sqrt()
    q = complete(x, r)
    square = (x[:, None] - sites["loc"]).square().sum(-1)

    def printed(sd: Tensor) -> Tensor:
        return (r * (-D / sd + square / sd**3)).sum(0)

    by_sd = grad(q, argnums=2)(sites["weights"], sites["loc"], sd)
    by_variance = grad(lambda v: q(sites["weights"], sites["loc"], v.sqrt()))(sd**2)
    torch.testing.assert_close(by_sd, printed(sd))
    torch.testing.assert_close(by_variance, printed(sd) / (2 * sd))
    assert not torch.allclose(by_variance, printed(sd), rtol=0.05)
    root = ((r * square).sum(0) / (D * r.sum(0))).sqrt()
    torch.testing.assert_close(printed(root), torch.zeros(K, dtype=x.dtype), atol=1e-10, rtol=0)


def test_each_row_has_an_integral_of_its_own() -> None:
    """log p(x) = Σ_i log ∫ p(x_i | z) p(z) dz; printed: log Σ_i ∫."""
    x, sites = ppca.simulate(4, latent_dim=1, num_features=2, seed=3)

    def density(z: float, row: Tensor) -> float:
        noise = sites["noise_variance"].sqrt()
        given = Normal(sites["loc"] + z * sites["W"][:, 0], noise).log_prob(row).sum()
        return float((given + Normal(0.0, 1.0).log_prob(torch.tensor(z, dtype=x.dtype))).exp())

    integrals = np.array([integrate.quad(density, -12, 12, args=(row,), epsabs=1e-12)[0] for row in x])
    exact = float(ppca.log_likelihood(sites, x).sum())
    assert np.log(integrals).sum() == pytest.approx(exact, abs=1e-7)
    assert abs(np.log(integrals.sum()) - exact) > 1


# ------------------------------------------------------------------------------------------------------- the bound


def test_minus_the_bound_lies_above_minus_the_evidence(x: Tensor, sites: dict[str, Tensor]) -> None:
    """L := -ELBO ≥ -log p(x), with equality for the posterior alone; printed with ≤."""
    joint, evidence = gmm.log_joint(sites, x), gmm.log_likelihood(sites, x).sum()
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        q = torch.randn(joint.shape, generator=generator, dtype=x.dtype).softmax(-1)
        assert -(q * (joint - q.log())).sum() > -evidence + 1
    q = gmm.responsibilities(sites, x)
    torch.testing.assert_close((torch.special.xlogy(q, q) - q * joint).sum(), -evidence)


def test_raising_the_bound_in_theta_does_not_lower_the_divergence(x: Tensor, sites: dict[str, Tensor]) -> None:
    """The ELBO's maximum over q is the divergence's minimum; over (q, θ) it is not, as θ moves log p(x) too."""
    q = gmm.responsibilities(sites, x)
    steps = gmm.em_steps(K, "isotropic")
    after = steps.m_step(steps.e_step(sites, x), x)

    def bound_and_divergence(params: dict[str, Tensor]) -> tuple[float, float]:
        joint = gmm.log_joint(params, x)
        bound = float((q * joint - torch.special.xlogy(q, q)).sum())
        return bound, float(joint.logsumexp(-1).sum()) - bound

    (low, none), (high, some) = bound_and_divergence(sites), bound_and_divergence(after)
    assert none == pytest.approx(0, abs=1e-9)
    assert high > low + 1
    assert some > none + 1


def test_the_priors_pull_is_the_mean_itself() -> None:
    """∂KL(N(μ, s²) ‖ N(0, 1)) / ∂μ = +μ; printed -μ."""
    mean, sd = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([0.4, 2.0], dtype=torch.float64)
    pull = grad(lambda m: kl_divergence(Normal(m, sd), Normal(torch.zeros_like(m), 1.0)).sum())(mean)
    torch.testing.assert_close(pull, mean)
    assert (pull + mean).abs().min() > 1


def test_a_normal_is_reparameterised_by_the_root_of_its_covariance() -> None:
    """z = μ + Σ^{1/2} ε; printed: μ + ε Σ^{-1/2}."""
    covariance = torch.tensor([[2.0, 0.6], [0.6, 0.5]], dtype=torch.float64)
    values, axes = torch.linalg.eigh(covariance)
    root = axes @ values.sqrt().diag() @ axes.mT
    eps = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def off(draws: Tensor) -> Tensor:
        """Distance of the second moments from Σ, in standard errors."""
        products = draws[:, :, None] * draws[:, None]
        return ((products.mean(0) - covariance) / (products.std(0) / len(draws) ** 0.5)).abs()

    assert off(eps @ root).max() < 4
    assert off(eps @ root.inverse()).min() > 20


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_the_constant_of_a_normal_density(columns: int) -> None:
    """-(D/2) log 2πσ²; printed: -log(σ² √(2π)), whose density does not integrate to one."""
    variance = 0.6
    side = torch.linspace(-7, 7, 81, dtype=torch.float64)
    square = torch.cartesian_prod(*[side] * columns).reshape(-1, columns).square().sum(-1)
    cell = float(side[1] - side[0]) ** columns
    right = -columns / 2 * math.log(2 * math.pi * variance)
    printed = -math.log(variance * math.sqrt(2 * math.pi))
    mass = [float((constant - square / (2 * variance)).exp().sum() * cell) for constant in (right, printed)]
    assert mass[0] == pytest.approx(1, abs=1e-6)
    assert abs(mass[1] - 1) > 0.2
    at = torch.full((columns,), 0.3, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros_like(at), variance * torch.eye(columns, dtype=at.dtype)).log_prob(at)
    assert right - float(at.square().sum()) / (2 * variance) == pytest.approx(float(exact), abs=1e-12)


# ---------------------------------------------------------------------------------------------- graphs and minibatches


def test_a_node_without_incoming_edges_is_independent_of_its_non_descendants_alone() -> None:
    """Segment → counts: a customer's segment is independent of another's, and not of her own purchases."""
    sites = {
        "weights": torch.tensor([0.3, 0.7], dtype=torch.float64),
        "probs": torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64),
    }
    row = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)  # what one purchase can be
    joint = mixture.log_joint(sites, row).exp()  # p(x, z), shape (x, z)
    torch.testing.assert_close(joint.sum(), torch.tensor(1.0, dtype=joint.dtype))
    of_x, of_z = joint.sum(1), joint.sum(0)
    assert (joint - of_x[:, None] * of_z).abs().max() > 0.1
    both = torch.einsum("xz,yw->xzyw", joint, joint)  # two customers
    segments = both.sum((0, 2))
    torch.testing.assert_close(segments, segments.sum(1, keepdim=True) * segments.sum(0))


def test_the_scale_of_a_minibatch_multiplies_the_divergence_of_local_variables_too() -> None:
    """n (log p(x_i | z) - KL_i), averaged over i, is the ELBO; with n on the first term alone, KL has weight 1/n."""
    x = latent.data(6)
    with pyro.get_param_store().scope():
        latent.model(x)
        latent.encoder(x)
        store = pyro.get_param_store()
        for name, value in {"centre": 2.5, "spread": 1.7, "slope": 0.6, "shift": 0.5, "scale": 0.8}.items():
            store[name] = torch.tensor(value, dtype=x.dtype)
        mean, scale = 0.6 * x + 0.5, torch.tensor(0.8, dtype=x.dtype)
        fit = Normal(mean, 1.0).log_prob(x) - scale**2 / 2  # E log p(x_i | z_i)
        divergence = kl_divergence(Normal(mean, scale), Normal(torch.full_like(mean, 2.5), 1.7))
        elbo = (fit - divergence).sum()
        assert (6 * fit - divergence).mean() > elbo + 1  # as printed

        noise = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=x.dtype)

        def bound(rows: list[int], batch_size: int | None) -> float:
            """The bound at one draw of the encoder, some rows standing for all."""
            value = x.new_zeros(())
            for sign, function in ((1, latent.model), (-1, latent.encoder)):
                given = poutine.condition(function, data={"z": (mean + scale * noise)[rows]})
                if batch_size:
                    given = row_scale(latent.model, (x,), batch_size, autoguide=False)(given)
                value = value + sign * poutine.trace(given).get_trace(x[rows]).log_prob_sum()
            return float(value.detach())

        whole = bound(list(range(6)), None)
        for size in (1, 2, 3):
            parts = [bound(list(rows), size) for rows in itertools.combinations(range(6), size)]
            assert np.mean(parts) == pytest.approx(whole, abs=1e-9)
            assert np.std(parts) > 0.1
