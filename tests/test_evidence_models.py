"""Evidence of models with modules, flat priors, several modes, or no latent site; each against its exact value."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, constraints
from zoo import linear

from guidebook.inference.evidence import Evidence, evidence
from guidebook.inference.evidence.bridge import bridge
from guidebook.inference.traces.prepare import prepare
from guidebook.models import ppca

X, TRUTH = ppca.simulate(12, latent_dim=2, num_features=3, seed=1)


def exact_of(weight: Tensor, bias: Tensor) -> float:
    sites = {"W": weight, "loc": bias, "noise_variance": torch.ones((), dtype=torch.float64)}
    return float(ppca.log_likelihood(sites, X).sum())


def assert_near(found: Evidence, exact: float) -> None:
    assert abs(found.estimate - exact) < 4.5 * found.error + 1e-6, (str(found), exact)


# --------------------------------------------------------------------------------------------------- parameters


class AsInPyrosTutorial(torch.nn.Module):
    """Modules by ``pyro.module``, used themselves afterwards."""

    names = ("decoder$$$weight", "decoder$$$bias", "encoder$$$weight", "encoder$$$bias")

    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = torch.nn.Linear(2, 3).double(), torch.nn.Linear(3, 2).double()

    def model(self, x: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, x: Tensor) -> None:
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.7).to_event(1))


class Updating(AsInPyrosTutorial):
    """With what ``pyro.module`` returns, and the store's values written into the module."""

    def model(self, x: Tensor) -> None:
        decoder = pyro.module("decoder", self.decoder, update_module_params=True)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)


class Decoder(pyro.nn.PyroModule):
    """A ``PyroModule`` as the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.decoder = pyro.nn.PyroModule[torch.nn.Linear](2, 3).double()

    def forward(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1), obs=x)


class Encoder(pyro.nn.PyroModule):
    """A weight, and a ``PyroParam`` that has a constraint."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = pyro.nn.PyroModule[torch.nn.Linear](3, 2).double()
        self.scale = pyro.nn.PyroParam(torch.tensor(5.0).double(), constraint=constraints.positive)

    def forward(self, x: Tensor) -> None:
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), self.scale).to_event(1))


class OfPyroModules(torch.nn.Module):
    """Model and guide are ``PyroModule`` s."""

    names = ("decoder.weight", "decoder.bias", "encoder.weight", "encoder.bias", "scale")

    def __init__(self) -> None:
        super().__init__()
        self.model, self.guide = Decoder(), Encoder()


KINDS: list[Any] = [AsInPyrosTutorial, Updating, OfPyroModules]


def right_params(names: tuple[str, ...]) -> dict[str, Tensor]:
    """Of a decoder, and of the encoder that is its posterior mean (Bishop 2006, equation 12.41)."""
    weight, bias = TRUTH["W"].double(), TRUTH["loc"].double()
    slope = torch.linalg.solve(weight.mT @ weight + torch.eye(2).double(), weight.mT)
    return dict(zip(names, (weight, bias, slope, -slope @ bias, torch.tensor(0.6).double()), strict=False))


@pytest.mark.parametrize("kind", KINDS)
def test_params_reach_the_modules_for_the_time_of_the_call(kind: Any) -> None:
    torch.manual_seed(0)
    net = kind()
    params = right_params(net.names)
    given = {name: value.clone() for name, value in params.items()}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    exact = exact_of(params[net.names[0]], params[net.names[1]])
    assert abs(exact_of(*list(before.values())[:2]) - exact) > 5
    for method, options in (("importance", {"guide": net.guide}), ("naive", {}), ("ais", {"num_temperatures": 30})):
        draws = 100 if method == "ais" else 4000
        assert_near(evidence(net.model, X, method=method, params=params, num_draws=draws, **options), exact)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(torch.equal(params[name], given[name]) for name in given)
    own = evidence(net.model, X, method="ais", num_draws=100, num_temperatures=30)
    assert_near(own, exact_of(*list(before.values())[:2]))


@pytest.mark.parametrize("kind", KINDS)
def test_modules_are_put_back_after_an_error(kind: Any) -> None:
    net = kind()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    params = right_params(net.names)
    draws = {"z": torch.zeros(1, 4, len(X), 2).double()}
    with pytest.raises(ValueError, match=r"^bridge: 2 draws, half of those given, are too few"):
        evidence(net.model, X, method="bridge", posterior=draws, params=params)
    nowhere = params | {net.names[1]: params[net.names[1]] + math.inf}
    with pytest.raises(FloatingPointError):
        evidence(net.model, X, guide=net.guide, params=nowhere, num_draws=10)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_names_that_nothing_uses_and_wrong_shapes_are_refused() -> None:
    net = AsInPyrosTutorial()
    params = right_params(net.names)
    weight, bias = net.names[:2]
    there = r"the parameters are 'decoder\$\$\$weight', 'decoder\$\$\$bias'"
    with pytest.raises(ValueError, match=rf"^evidence: params has 'scale', which nothing uses: {there}, 'encoder"):
        evidence(net.model, X, guide=net.guide, params=params | {"scale": torch.ones(())})
    misspelt = {"decoder$$$wieght": params[weight], bias: params[bias]}
    with pytest.raises(ValueError, match=rf"^evidence: params has 'decoder\$\$\$wieght', which nothing uses: {there}$"):
        evidence(net.model, X, method="naive", params=misspelt)
    with pytest.raises(ValueError, match=r"^evidence: params has 'w', which nothing uses: the parameters are none$"):
        evidence(linear.model, *linear.data(), guide=linear_guide, params={"w": torch.zeros(3)})
    many = {f"p{i}": torch.zeros(()) for i in range(12)}
    with pytest.raises(ValueError, match=r"'p9' and 2 more, which nothing uses"):
        evidence(net.model, X, guide=net.guide, params=params | many)
    with pytest.raises(
        ValueError,
        match=r"^evidence: parameter 'decoder\$\$\$bias' has shape \(3,\), and params has it in shape \(4,\)$",
    ):
        evidence(net.model, X, method="naive", params=params | {bias: torch.zeros(4)})
    with pytest.raises(
        ValueError, match=r"^evidence: parameter 'scale' has shape \(\), and params has it in shape \(1,"
    ):
        evidence(OfPyroModules().model, X, guide=Encoder(), params={"scale": torch.ones(1)})


def linear_guide(x: Tensor, y: Tensor) -> None:
    pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))


# --------------------------------------------------------------------------------------------------- flat priors


def improper(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.ImproperUniform(constraints.real, (), ()))
    pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def improper_vector(x: Tensor) -> None:
    with pyro.plate("parts", 2):
        scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), (3,)).mask(True))
    pyro.sample("x", dist.Normal(scale.sum(), 1.0).expand([len(x)]).to_event(1), obs=x)


def masked_out(x: Tensor) -> None:
    mu = pyro.sample("mu", dist.Normal(x.new_zeros(2), 1.0).mask(False).to_event(1))
    pyro.sample("x", dist.Normal(mu.sum(), 1.0).expand([len(x)]).to_event(1), obs=x)


def masked_by_a_handler(x: Tensor) -> None:
    with poutine.mask(mask=False):
        mu = pyro.sample("mu", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(mu, 1.0).expand([len(x)]).to_event(1), obs=x)


def masked_in_part(x: Tensor) -> None:
    """One of three entries has no density, and the data depend on it."""
    with pyro.plate("parts", 3):
        mu = pyro.sample("mu", dist.Normal(x.new_zeros(2), 1.0).to_event(1).mask(torch.tensor([True, False, True])))
    pyro.sample("x", dist.Normal(mu.sum(), 1.0).expand([len(x)]).to_event(1), obs=x)


def masked_parent(x: Tensor) -> None:
    """What the masked site decides is another latent site's density."""
    mu = pyro.sample("mu", dist.Normal(x.new_zeros(()), 1.0).mask(False))
    theta = pyro.sample("theta", dist.Normal(mu, 1.0))
    pyro.sample("x", dist.Normal(theta, 1.0).expand([len(x)]).to_event(1), obs=x)


@pytest.mark.parametrize(
    "model", [improper, improper_vector, masked_out, masked_by_a_handler, masked_in_part, masked_parent]
)
def test_flat_priors_are_refused_by_name(model: Callable) -> None:
    name = "scale" if model is improper_vector else "mu"
    words = rf"^evidence: site '{name}' has a flat prior, so that the model has no evidence$"
    draws = {"posterior": {"mu": torch.randn(2, 100).double()}}
    for method, given in (("naive", {}), ("ais", {}), ("bridge", draws)):
        with pytest.raises(ValueError, match=words):
            evidence(model, torch.zeros(3).double(), method=method, **given)


def missing(x: Tensor) -> None:
    """Entries of x that were not observed, which nothing else depends on."""
    mu = pyro.sample("mu", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x, obs_mask=torch.tensor([True, False, True]))


def idle(x: Tensor) -> None:
    """A masked site without consequences, and masked data."""
    pyro.sample("idle", dist.Normal(x.new_zeros(2), 1.0).to_event(1).mask(False))
    mu = pyro.sample("mu", dist.Normal(x.new_zeros(()), 1.0).mask(True))
    with pyro.plate("rows", len(x)), poutine.mask(mask=torch.tensor([True, False, True])):
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


@pytest.mark.parametrize("model", [missing, idle])
def test_masked_entries_without_consequences_are_not_refused(model: Callable) -> None:
    assert prepare("evidence", model, (torch.zeros(3).double(),)).flat == ()


# --------------------------------------------------------------------------------------------------- no latent site


def test_without_latent_sites_the_evidence_is_the_likelihood() -> None:
    x = torch.tensor([0.3, -1.2, 2.0]).double()

    def null(x: Tensor) -> None:
        scale = pyro.param("scale", lambda: x.new_ones(()), constraint=constraints.positive)
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    scale = torch.tensor(2.0).double()
    found = evidence(null, x, method="naive", params={"scale": scale})
    assert found.estimate == pytest.approx(float(Normal(0 * scale, scale).log_prob(x).sum()), abs=1e-12)
    assert (found.error, found.bound, found.warnings, found.per_row) == (0.0, "none", [], None)
    assert evidence(lambda: None, method="ais").estimate == 0.0

    def subsampled(x: Tensor) -> None:
        with pyro.plate("rows", len(x), subsample_size=2) as index:
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x[index])

    on_all_rows = evidence(subsampled, x, method="naive").estimate
    assert on_all_rows == pytest.approx(float(Normal(0.0, 1.0).log_prob(x).sum()), abs=1e-12)


# --------------------------------------------------------------------------------------------------- several modes


def two_groups(x: Tensor) -> None:
    loc = pyro.sample("loc", dist.Normal(x.new_zeros(2), 4.0).to_event(1))
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(2)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(loc, 1.0)), obs=x)


GROUPS = torch.cat([torch.linspace(-4, -2, 4), torch.linspace(2, 4, 8)]).double()


def on_a_grid() -> tuple[float, Callable[[np.random.Generator, int], dict[str, Tensor]]]:
    """Evidence of `two_groups` on 161² × 101 points, and a sampler of the mode with the smaller location first."""
    loc, weight = np.linspace(-10, 10, 161), (np.arange(101) + 0.5) / 101
    first, second, share = np.meshgrid(loc, loc, weight, indexing="ij")
    total = stats.norm.logpdf(first, 0, 4) + stats.norm.logpdf(second, 0, 4)
    for value in GROUPS.numpy():
        total += np.log(
            share * stats.norm.pdf(value, first, 1) + (1 - share) * stats.norm.pdf(value, second, 1) + 1e-300
        )
    mass = np.exp(total)
    exact = math.log(mass.sum() * (loc[1] - loc[0]) ** 2 / 101)
    ordered = np.where(first < second, mass, 0).ravel()

    def draw(rng: np.random.Generator, count: int) -> dict[str, Tensor]:
        at = rng.choice(mass.size, count, p=ordered / ordered.sum())
        jitter = rng.uniform(-0.5, 0.5, (3, count)) * np.array([[loc[1] - loc[0]], [loc[1] - loc[0]], [1 / 101]])
        a, b, w = (axis.ravel()[at] + shift for axis, shift in zip((first, second, share), jitter, strict=True))
        return {"loc": torch.tensor(np.stack([a, b], -1)), "weights": torch.tensor(np.stack([w, 1 - w], -1))}

    return exact, draw


EXACT_GROUPS, draw_groups = on_a_grid()


def in_chains(chains: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([chain[name] for chain in chains]) for name in chains[0]}


def flipped(draws: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.flip(-1) for name, value in draws.items()}


def test_one_order_of_exchangeable_components_is_pointed_out() -> None:
    rng = np.random.default_rng(0)
    one_order = in_chains([draw_groups(rng, 500), draw_groups(rng, 500)])
    found = evidence(two_groups, GROUPS, method="bridge", posterior=one_order)
    assert_near(found._replace(estimate=found.estimate + math.log(2)), EXACT_GROUPS)
    assert found.estimate < EXACT_GROUPS - 20 * found.error
    assert "2 components of loc and weights exchanged" in str(found)
    assert "add log 2! = 0.69" in str(found)

    mixed = in_chains([draw_groups(rng, 400) for _ in range(2)])
    switching = torch.rand(2, 400, 1, generator=torch.Generator().manual_seed(0)) < 0.5
    both = {name: torch.where(switching, value, value.flip(-1)) for name, value in mixed.items()}
    whole = evidence(two_groups, GROUPS, method="bridge", posterior=both)
    assert "components" not in whole.diagnostics
    assert_near(whole, EXACT_GROUPS)


def test_chains_in_different_modes_are_pointed_out() -> None:
    rng = np.random.default_rng(1)
    chains = in_chains([draw_groups(rng, 300), flipped(draw_groups(rng, 300)), draw_groups(rng, 300)])
    found = evidence(two_groups, GROUPS, method="bridge", posterior=chains)
    assert found.diagnostics["r_hat"] > 1.3
    assert "the chains disagree" in str(found)


def lopsided(x: Tensor) -> None:
    """Two locations with different priors."""
    loc = pyro.sample("loc", dist.Normal(x.new_tensor([-3.0, 3.0]), 1.0).to_event(1))
    with pyro.plate("rows", len(x)):
        mix = dist.MixtureSameFamily(dist.Categorical(x.new_ones(2)), dist.Normal(loc, 1.0))
        pyro.sample("x", mix, obs=x)


def three_sums(x: Tensor) -> None:
    """Symmetric in its three coefficients, with a single mode."""
    w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
    pyro.sample("x", dist.Normal(w.sum(-1), 1.0).expand([len(x)]).to_event(1), obs=x)


def test_models_that_are_not_exchangeable_or_have_one_mode_get_no_warning() -> None:
    def apart(x: Tensor) -> None:
        pyro.sample("loc", dist.Normal(x.new_tensor([-3.0, 3.0]), 0.5).to_event(1))

    def together(x: Tensor) -> None:
        pyro.sample("w", dist.Normal(x.mean().expand(3) / 3, 1.0).to_event(1))

    for model, guide, known in ((lopsided, apart, None), (three_sums, together, 1)):
        found = evidence(model, GROUPS, guide=guide, num_draws=1000)
        assert "components" not in found.diagnostics
        if known:
            covariance = 3 * torch.ones(12, 12).double() + torch.eye(12).double()
            assert_near(found, float(MultivariateNormal(torch.zeros(12).double(), covariance).log_prob(GROUPS)))

    def one_of_two(x: Tensor) -> None:
        pyro.sample("loc", dist.Normal(x.new_tensor([-3.0, 3.0]), 0.5).to_event(1))
        pyro.sample("weights", dist.Dirichlet(x.new_tensor([4.0, 8.0])))

    assert "add log 2!" in str(evidence(two_groups, GROUPS, guide=one_of_two, num_draws=1000))


# --------------------------------------------------------------------------------------------------- bridges


def autoregressive(seed: int, shape: tuple[int, int, int], kept: float) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    for step in range(1, shape[1]):
        noise[:, step] = kept * noise[:, step - 1] + math.sqrt(1 - kept**2) * noise[:, step]
    return noise


@pytest.mark.parametrize("kept", [0.0, 0.8, -0.5])
@pytest.mark.parametrize("kind", ["normal", "log gamma"])
def test_a_bridges_distances_have_spread_one(kind: str, kept: float) -> None:
    """Sixty repetitions in three dimensions; the spread lies within a 1e-4 interval of that of sixty normals, × 1.1."""
    gamma, z = stats.gamma(2.0), []
    for seed in range(60):
        noise = autoregressive(seed, (4, 250, 3), kept)
        if kind == "normal":
            draws = torch.tensor(noise)

            def log_density(at: Tensor) -> Tensor:
                return Normal(0.0, 1.0).log_prob(at).sum(-1)
        else:
            draws = torch.tensor(gamma.ppf(stats.norm.cdf(noise))).log()

            def log_density(at: Tensor) -> Tensor:
                return (2 * at - at.exp()).sum(-1)  # Γ(2) = 1

        torch.manual_seed(seed)
        found = bridge(log_density, draws[:, :, None], None)
        z.append(float(found.estimate / found.relative_mse.sqrt()))
    low, high = (math.sqrt(stats.chi2(59).ppf(p) / 59) for p in (5e-5, 1 - 5e-5))
    assert low / 1.1 < np.std(z, ddof=1) < 1.1 * high, np.std(z, ddof=1)
    assert abs(np.mean(z)) < 4.5 / math.sqrt(60)
