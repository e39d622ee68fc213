"""Components that swap labels between chains, draws and methods: recognised, said, and matched."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from test_compare import by_nuts, by_svi
from torch import Tensor

from guidebook.inference import compare, gibbs, nuts
from guidebook.inference.diagnostics import of_sites
from guidebook.inference.exchangeable import component_dims, match_components, swapping_dims
from guidebook.inference.mcmc.chains import Chains
from guidebook.models import GibbsSteps

Sites = dict[str, Tensor]
OF_COMPONENTS = {"weights": 0, "loc": 0, "scale": 0, "covariance": 0}


def three_components(seed: int, num_draws: int = 1000) -> Sites:
    """Draws as of a mixture of three normals in two dimensions, all components in one order."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(4, num_draws, *shape, generator=generator, dtype=torch.float64)

    sds, scales = torch.tensor([0.3, 0.5, 0.2]).double(), torch.tensor([1.0, 1.6, 0.7]).double()
    scale = scales * (0.2 * normal(3)).exp()
    root = torch.eye(2).double() + 0.1 * normal(3, 2, 2)
    return {
        "weights": (torch.tensor([0.0, 0.5, -0.3]).double() + 0.1 * normal(3)).softmax(-1),
        "loc": torch.tensor([[0.0, 0.0], [1.0, 3.0], [4.0, -1.0]]).double() + normal(3, 2) * sds[:, None],
        "scale": scale,
        "covariance": root @ root.mT * scale[..., None, None] ** 2,
        "prior_mean": normal(2),
    }


def permuted(draws: Sites, per: str, seed: int = 0, sites: tuple[str, ...] = tuple(OF_COMPONENTS)) -> Sites:
    """The same draws with components in a random order per chain or per draw."""
    chains, length = draws[sites[0]].shape[:2]
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(chains, length if per == "draw" else 1, draws[sites[0]].shape[2], generator=generator)
    order = noise.argsort(-1).expand(chains, length, -1)
    chain, draw = torch.arange(chains)[:, None, None], torch.arange(length)[:, None]
    return draws | {site: draws[site][chain, draw, order] for site in sites}


pair = partial(compare, names=["a", "b"])


@pytest.mark.parametrize("per", ["chain", "draw"])
def test_permuted_components_are_matched_to_the_truth_within_monte_carlo_error(per: str) -> None:
    """One permutation of all draws together is left open, and the anchor settles it."""
    truth, mixed = three_components(1), permuted(three_components(2), per)
    comparison = pair(by_nuts(**truth), by_nuts(**mixed), identify="exchangeable")
    frame = comparison.quantities["b"]
    assert len(frame) == 3 + 6 + 3 + 9 + 2
    assert (frame["mean_shift_in_sd"].abs() < 4 * frame["mcse_in_sd"]).all()
    assert ((frame["sd_ratio"] - 1).abs() < 4 * frame["sd_ratio_error"]).all()
    assert comparison.verdicts["b"].judgement == "good"
    swapped = pair(by_nuts(**mixed), by_nuts(**truth), identify="exchangeable")
    assert swapped.refused is None
    assert swapped.verdicts["b"].judgement == "good"


def test_matching_returns_every_draw_as_it_was_before_it_was_permuted() -> None:
    truth = three_components(1)
    for per in ("chain", "draw"):
        matched = match_components(permuted(truth, per), truth, dims=OF_COMPONENTS)
        same = (matched["loc"] == truth["loc"]).flatten(2).all(-1)
        assert float(same.double().mean()) > 0.999  # components hardly overlap
        assert torch.equal(matched["prior_mean"], truth["prior_mean"])


def test_sites_and_dimensions_of_components_are_found() -> None:
    truth = three_components(1, 200)
    assert component_dims(truth) == OF_COMPONENTS
    assert component_dims(permuted(truth, "draw")) == OF_COMPONENTS
    one_covariance = truth | {"covariance": truth["covariance"][:, :, 0]}
    assert component_dims(one_covariance) == {"weights": 0, "loc": 0, "scale": 0}
    topics = torch.rand(2, 50, 4, 30).double()
    documents = torch.rand(2, 50, 7, 4).double()
    by_topic = {"words": topics / topics.sum(-1, keepdim=True), "shares": documents / documents.sum(-1, keepdim=True)}
    assert component_dims(by_topic) == {"words": 0, "shares": 1}
    assert component_dims({"a": torch.randn(2, 50), "b": torch.randn(2, 50, 1), "c": torch.randn(2, 50, 5)}) == {}


def test_components_swap_only_if_draws_differ_in_their_order() -> None:
    truth = three_components(1)
    assert swapping_dims(truth) == swapping_dims(truth, three_components(2)) == {}
    for per in ("chain", "draw"):
        assert swapping_dims(permuted(truth, per)) == swapping_dims(truth, permuted(truth, per)) == OF_COMPONENTS
    noise = torch.randn(4, 1000, 2, 20, generator=torch.Generator().manual_seed(0))
    assert swapping_dims({"a": noise[:, :, 0], "b": noise[:, :, 1].exp()}) == {}


def test_draws_that_are_not_finite_are_no_components() -> None:
    truth = three_components(1, 200)
    truth["scale"][0, 0, 0] = torch.nan
    assert component_dims(truth) == {site: 0 for site in OF_COMPONENTS if site != "scale"}
    with_nan = match_components(truth, dims=OF_COMPONENTS)
    assert torch.equal(with_nan["scale"].isnan().sum(), torch.tensor(1))


def test_square_matrices_are_no_components() -> None:
    """A covariance and a Cholesky factor in as many dimensions as there are components."""
    draws = {name: three_components(1)[name] for name in ("weights", "scale")}
    matrix = torch.randn(4, 1000, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    draws |= {"shared": matrix @ matrix.mT, "root": matrix.tril()}
    assert component_dims(draws) == {"weights": 0, "scale": 0}


@pytest.mark.parametrize("per", ["chain", "draw"])
def test_a_site_by_feature_is_not_taken_for_one_by_component(per: str) -> None:
    """Three noise scales of three features beside three components: they must not follow the components."""
    noise = torch.randn(4, 1000, 3, generator=torch.Generator().manual_seed(5)).double()
    by_feature = {"noise": torch.tensor([1.0, 3.0, 9.0]).double() + 0.1 * noise}
    truth, mixed = three_components(1) | by_feature, permuted(three_components(2), per) | by_feature
    assert component_dims(truth, mixed) == OF_COMPONENTS
    assert pair(by_nuts(**truth), by_nuts(**mixed), identify="exchangeable").verdicts["b"].judgement == "good"


@pytest.mark.parametrize("per", ["chain", "draw"])
def test_it_is_said_that_labels_merely_swap(per: str) -> None:
    truth, mixed = three_components(1), permuted(three_components(2), per)
    words = "components merely swap labels (in weights, loc, scale, covariance): compare with identify='exchangeable'"
    verdict = pair(by_nuts(**truth), by_nuts(**mixed)).verdicts["b"]
    assert verdict == ("not judged", f"b is not judged: {words}.")
    comparison = pair(by_nuts(**mixed), by_nuts(**truth))
    if per == "chain":
        assert words in str(comparison.refused)
        assert words in comparison.verdicts["a"].sentence
    else:  # chains agree, and so would a posterior that swaps as often
        assert comparison.verdicts["b"].sentence == f"b is not judged: {words}."
    assert comparison.table.loc["b", "judgement"] == "not judged"


def test_posteriors_that_differ_in_more_than_labels_are_judged_as_ever() -> None:
    truth, mixed = three_components(1), permuted(three_components(2), "chain")
    for change in ({"loc": mixed["loc"] + 1}, {"prior_mean": mixed["prior_mean"] + 1}):
        verdict = pair(by_nuts(**truth), by_svi(**(mixed | change))).verdicts["b"]
        assert verdict.judgement != "not judged"
        assert "labels" not in verdict.sentence
    apart = truth["loc"] + torch.arange(4.0).double()[:, None, None, None]
    assert "labels" not in str(pair(by_nuts(**(truth | {"loc": apart})), by_nuts(**truth)).refused)


def test_a_narrow_posterior_in_another_order_is_too_narrow_once_it_is_matched() -> None:
    truth = three_components(1)
    narrow = {n: v.mean((0, 1)) + 0.5 * (v - v.mean((0, 1))) for n, v in three_components(2).items()}
    other = by_svi(**permuted(narrow, "chain", seed=1))
    assert pair(by_nuts(**truth), other).verdicts["b"].judgement == "not judged"
    matched = pair(by_nuts(**truth), other, identify="exchangeable").verdicts["b"]
    assert "too narrow (23 of 23 quantities" in matched.sentence


def test_a_point_in_another_order_is_matched() -> None:
    truth = three_components(1)
    point = {n: v.mean((0, 1))[None, None] for n, v in truth.items()}
    turned = by_svi(k_hat=None, **(point | {site: point[site].flip(2) for site in OF_COMPONENTS}))
    assert "sd off" not in pair(by_nuts(**truth), turned, identify="exchangeable").verdicts["b"].sentence
    assert "swap labels" in pair(by_nuts(**truth), turned).verdicts["b"].sentence


def test_a_dictionary_says_which_sites_have_components_and_where() -> None:
    """Log probabilities of rows, with components last, are not found by themselves."""
    found = []
    for seed in (1, 2):
        draws = three_components(seed)
        noise = torch.randn(4, 1000, 3, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        draws["by_row"] = noise + torch.tensor([0.0, 3.0, 6.0]).double()[:, None]
        found.append(draws if seed == 1 else permuted(draws, "draw", sites=(*OF_COMPONENTS, "by_row")))
        found[-1]["by_row"] = found[-1]["by_row"].mT
    truth, mixed = (by_nuts(**draws) for draws in found)
    assert pair(truth, mixed, identify="exchangeable").verdicts["b"].judgement != "good"
    for dim in (1, -1):
        named = pair(truth, mixed, identify=OF_COMPONENTS | {"by_row": dim})
        assert named.verdicts["b"].judgement == "good"


def test_mistakes_in_identify() -> None:
    fit = by_nuts(**three_components(1, 100))
    for identify, words in (
        ({"mu": 0}, "identify names 'mu', and the posteriors share weights, loc"),
        ({"loc": 2}, r"identify gives dimension 2 of 'loc', which has shape \(3, 2\)"),
        ({"loc": 1, "scale": 0}, "one number of components, not 2 of 'loc', 3 of 'scale'"),
        ("labels", "identify must be a function, 'exchangeable' or a dictionary; got 'labels'"),
    ):
        with pytest.raises(ValueError, match=f"^compare: .*{words}"):
            compare(fit, fit, identify=identify)
    scalar = by_nuts(a=torch.randn(4, 100))
    with pytest.raises(ValueError, match=r"^compare: no shared site has components: say which do"):
        compare(scalar, scalar, identify="exchangeable")


def chains_of(draws: Sites) -> str:
    return Chains(draws, {}, *of_sites(draws), 0.0).disagreement


def test_chains_say_that_labels_merely_swap() -> None:
    truth = three_components(1)
    assert chains_of(truth) == ""
    said = chains_of(permuted(truth, "chain"))
    assert said.startswith("components merely swap labels (in weights, loc, scale, covariance; R̂ 2.")
    assert "identify='exchangeable'" in said
    apart = permuted(truth, "chain")
    apart["prior_mean"] = apart["prior_mean"] + torch.arange(4.0).double()[:, None, None]
    assert chains_of(apart).startswith("the chains have not mixed (R̂ 2.")


def two_normals(x: Tensor) -> None:
    """A mixture as a user writes it, the components summed out by Pyro."""
    weights = pyro.sample("weights", dist.Dirichlet(x.new_ones(2)))
    with pyro.plate("components", 2):
        loc = pyro.sample("loc", dist.Normal(x.new_zeros(()), 5.0))
        scale = pyro.sample("scale", dist.LogNormal(x.new_zeros(()), 1.0))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)


@pytest.mark.slow
def test_a_users_mixture_by_nuts_in_different_labellings() -> None:
    """Chains end in either order; a run of one chain has one order; both are the same posterior."""
    pytest.importorskip("numpyro", reason="Pyro takes minutes over it")
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randn(60, generator=generator) - 3, 0.5 * torch.randn(40, generator=generator) + 2]).double()
    run = partial(nuts, two_normals, x, num_draws=1000, num_warmup=500, progress=False)
    with pytest.warns(UserWarning, match=r"^nuts: drew 1000 .*; components merely swap labels \(in") as said:
        several = run(seed=0)
    assert [warning.filename for warning in said] == [__file__]
    assert not several.info.converged
    order = (several.draws["loc"].mean(1).diff() > 0).flatten()
    assert 0 < int(order.sum()) < 4  # chains in both orders
    alone = run(seed=5, num_chains=1)

    raw = pair(several, alone)
    assert "components merely swap labels (in weights, loc, scale)" in str(raw.refused)
    matched = pair(several, alone, identify="exchangeable")
    assert matched.refused is None
    assert matched.verdicts["b"].judgement == "good"
    assert matched.quantities["a"]["r_hat"].max() < 1.01
    smaller = matched.quantities["a"]["mean"][["loc[0]", "loc[1]"]].min()
    assert smaller == pytest.approx(float(x[:60].mean()), abs=0.1)


def test_gibbs_says_that_labels_swap() -> None:
    """Chains that start in either order and stay there: what the writer of conditionals expects, so no warning."""

    def init(num_chains: int, x: Tensor) -> Sites:
        return {"is_high": torch.tensor([[0.0, 1.0], [1.0, 0.0]])[torch.arange(num_chains) % 2]}

    def conditional(state: Sites, x: Tensor) -> Sites:
        loc, scale = 9 * state["is_high"] + torch.randn(2), (state["is_high"] + 0.1 * torch.randn(2)).exp()
        return {"loc": loc, "scale": scale}

    run = partial(gibbs, GibbsSteps(init, (conditional,), ("loc", "scale")), torch.zeros(1), progress=False)
    posterior = run()
    assert not posterior.info.converged
    assert "components merely swap labels (in loc, scale; R̂" in posterior.info.message
    assert run(num_chains=1).info.converged
    assert compare(posterior, posterior, identify="exchangeable").refused is None
    assert compare(posterior, posterior, identify={"loc": 0, "scale": 0}).refused is None
