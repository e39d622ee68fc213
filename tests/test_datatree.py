"""What ArviZ reads of a posterior, and what is read of other libraries' draws."""

import math
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as nd
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray as xr
from arviz_base import from_dict, from_numpyro
from arviz_stats import loo as arviz_loo
from arviz_stats import loo_pit, psense
from pyro.contrib.autoname import scope
from pyro.infer import MCMC, NUTS
from torch import Tensor
from zoo import linear, schools
from zoo.made import posterior_of

from guidebook.guides import mean_field
from guidebook.inference import Posterior, compare, dadvi, hmc, loo, nuts, pathfinder, svi

X, Y = linear.data()


@scope(prefix="model")
def grouped(x: Tensor, group: Tensor, y: Tensor | None = None) -> None:
    """Slopes, a level per group, and a name with a slash for each site."""
    slope = pyro.sample("slope", dist.Normal(torch.zeros(2), 2.0).to_event(1))
    with pyro.plate("groups", 4):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
    mean = pyro.deterministic("mean", x @ slope + level[group])
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(mean, 0.5), obs=y)


GENERATOR = torch.Generator().manual_seed(0)
TWO_COLUMNS, GROUP = torch.randn(40, 2, generator=GENERATOR), torch.arange(40) % 4
OUTCOME = TWO_COLUMNS @ torch.tensor([1.0, -1.0]) + GROUP / 2 + 0.5 * torch.randn(40, generator=GENERATOR)
DATA = (TWO_COLUMNS, GROUP, OUTCOME)


@pytest.fixture(scope="module")
def fitted() -> Posterior:
    return nuts(grouped, *DATA, num_draws=500, num_warmup=500, num_chains=2, progress=False)


@pytest.fixture(scope="module")
def tree(fitted: Posterior) -> xr.DataTree:
    return fitted.to_datatree(grouped, DATA, groups="all", coords={"model/slope": [["age", "height"]]})


def test_without_a_model_there_are_draws_and_statistics(fitted: Posterior) -> None:
    tree = fitted.to_datatree()
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert set(fitted.to_datatree(groups="posterior").children) == {"posterior"}
    for name in ("diverging", "energy", "tree_depth"):
        assert tree["sample_stats"][name].shape == (2, 500)
    with pytest.raises(ValueError, match="group 'log_likelihood' needs model= and data="):
        fitted.to_datatree(groups=["log_likelihood"])
    with pytest.raises(ValueError, match="there is no group 'predictions': the groups are posterior, sample_stats"):
        fitted.to_datatree(groups=["predictions"])


def test_every_group_is_filled(tree: xr.DataTree, fitted: Posterior) -> None:
    shapes = {
        group: {str(name): dict(variable.sizes) for name, variable in tree[group].data_vars.items()}
        for group in tree.children
    }
    drawn, prior = {"chain": 2, "draw": 500}, {"chain": 1, "draw": 1000}
    sites = {
        "model.slope": {"model.slope_dim_0": 2},
        "model.level": {"groups": 4},
        "model.mean": {"model.mean_dim_0": 40},
    }
    row, latent = {"rows": 40}, {name: sites[name] for name in ("model.slope", "model.level")}
    assert shapes["posterior"] == {name: drawn | dims for name, dims in sites.items()}
    assert shapes["prior"] == {name: prior | dims for name, dims in sites.items()}
    assert shapes["log_prior"] == dict.fromkeys(latent, drawn)
    assert shapes["posterior_predictive"] == shapes["log_likelihood"] == {"model.y": drawn | row}
    assert shapes["prior_predictive"] == {"model.y": prior | row}
    assert shapes["observed_data"] == {"model.y": row}
    assert shapes["constant_data"] == {"x": {"x_dim_0": 40, "x_dim_1": 2}, "group": {"group_dim_0": 40}}
    assert list(tree["posterior"].coords["model.slope_dim_0"].values) == ["age", "height"]
    assert np.array_equal(tree["observed_data"]["model.y"], OUTCOME)
    assert np.array_equal(tree["posterior"]["model.slope"], fitted.draws["model/slope"])
    default = fitted.to_datatree(grouped, DATA)
    assert set(tree.children) - set(default.children) == {"prior", "prior_predictive"}


def test_arviz_makes_something_of_the_groups(tree: xr.DataTree, fitted: Posterior) -> None:
    assert float(arviz_loo(tree).elpd) == pytest.approx(loo(grouped, fitted, *DATA).elpd, abs=0.1)
    pit = np.sort(loo_pit(tree)["model.y"].values)
    uniform = (np.arange(40) + 0.5) / 40
    assert np.abs(pit - uniform).max() < 1.63 / math.sqrt(40)  # Kolmogorov and Smirnov's, at 1 %
    prior = psense(tree, group="prior")
    likelihood = psense(tree, group="likelihood")
    assert (likelihood["model.slope"] > 0.05).all()  # 40 rows tell a slope with a prior of sd 2
    assert (prior["model.slope"] < 0.05).all()


def test_a_slash_comes_back(tree: xr.DataTree, fitted: Posterior, tmp_path: Path) -> None:
    again = Posterior.from_datatree(tree)
    assert again.draws.keys() == fitted.draws.keys() == {"model/slope", "model/level", "model/mean"}
    assert torch.equal(again.draws["model/slope"], fitted.draws["model/slope"])
    for posterior in (fitted, again):
        posterior.save(tmp_path / "posterior")
        loaded = Posterior.load(tmp_path / "posterior")
        assert type(loaded.info) is type(posterior.info)
        assert loaded.draws.keys() == fitted.draws.keys()
        assert (loaded.info.r_hat or {}).keys() == fitted.draws.keys()
    assert "model/slope[0]" in fitted.summary().index
    verdict = compare(fitted, again).verdicts["guidebook"]
    assert verdict.judgement == "good"


def test_names_that_would_coincide_are_kept_apart() -> None:
    posterior = posterior_of(**{"a.w": torch.zeros(1, 4), "a/w": torch.ones(1, 4)})
    tree = posterior.to_datatree()
    assert {float(variable.mean()) for variable in tree["posterior"].data_vars.values()} == {0.0, 1.0}
    again = Posterior.from_datatree(tree).draws
    assert torch.equal(again["a/w"], torch.ones(1, 4))


def test_a_guides_draws_have_weights_and_are_no_reference() -> None:
    for posterior in (
        svi(linear.model, mean_field, X, Y, num_steps=300, num_draws=200, progress=False),
        dadvi(linear.model, X, Y, progress=False),
    ):
        tree = posterior.to_datatree()
        assert posterior.log_weights is not None
        assert np.array_equal(tree["sample_stats"]["log_weights"][0], posterior.log_weights)
        again = Posterior.from_datatree(tree)
        assert again.info.guide == (posterior.info.guide or posterior.info.method)
        assert compare(again, posterior, names=["a", "b"]).refused
    assert pathfinder(linear.model, X, Y, num_draws=200, progress=False).log_weights is None


def test_a_plate_that_is_also_an_argument_names_no_dimension() -> None:
    def model(schools: Tensor, effect: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
        with pyro.plate("schools", len(schools)):
            pyro.sample("effect", dist.Normal(mu, schools), obs=effect)

    tree = posterior_of(mu=torch.randn(2, 50)).to_datatree(model, (schools.ERROR, schools.EFFECT))
    assert tree["log_likelihood"]["effect"].dims == ("chain", "draw", "effect_dim_0")
    assert set(tree["constant_data"].data_vars) == {"schools"}


# Draws that others made


def numpyro_linear(x, y=None) -> None:
    w = numpyro.sample("w", nd.Normal(np.zeros(3), 1.0).to_event(1))
    numpyro.deterministic("total", w.sum(-1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", nd.Normal(x @ w, linear.NOISE), obs=y)


@pytest.fixture(scope="module")
def numpyro_mcmc() -> numpyro.infer.MCMC:
    kernel = numpyro.infer.NUTS(numpyro_linear)
    mcmc = numpyro.infer.MCMC(
        kernel, num_warmup=500, num_samples=1000, num_chains=4, chain_method="vectorized", progress_bar=False
    )
    mcmc.run(jax.random.PRNGKey(1), X.numpy(), Y.numpy())
    return mcmc


@pytest.fixture(scope="module")
def pyro_mcmc() -> MCMC:
    torch.manual_seed(0)
    with pyro.get_param_store().scope():
        mcmc = MCMC(NUTS(linear.model, full_mass=True), 1000, 200, disable_progbar=True)
        mcmc.run(X, Y)
    return mcmc


@pytest.fixture(scope="module")
def own() -> Posterior:
    return nuts(linear.model, X, Y, num_warmup=500, progress=False)


@pytest.fixture(scope="module")
def narrow() -> Posterior:
    """Mean-field: two correlated columns make it too narrow."""
    return svi(linear.model, mean_field, X, Y, num_steps=3000, lr=0.02, num_draws=4000, progress=False)


def sources(numpyro_mcmc: numpyro.infer.MCMC, folder: Path) -> dict[str, object]:
    tree = from_numpyro(numpyro_mcmc)
    tree["posterior"].to_dataset().to_netcdf(folder / "numpyro.nc", engine="scipy")
    return {"MCMC": numpyro_mcmc, "tree": tree, "file": folder / "numpyro.nc"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["MCMC", "tree", "file"])
def test_numpyros_draws_judge_as_our_own_do(
    kind: str, numpyro_mcmc: numpyro.infer.MCMC, own: Posterior, narrow: Posterior, tmp_path: Path
) -> None:
    reference = Posterior.from_datatree(sources(numpyro_mcmc, tmp_path)[kind])
    assert reference.info.method == "numpyro"
    assert {name: value.shape for name, value in reference.draws.items()} == {"w": (4, 1000, 3), "total": (4, 1000)}
    by_ours, by_theirs = (compare(judge, narrow, names=["reference", "narrow"]) for judge in (own, reference))
    assert by_theirs.refused is None
    assert by_theirs.verdicts["narrow"].judgement == by_ours.verdicts["narrow"].judgement == "bad"
    a, b = by_ours.quantities["narrow"], by_theirs.quantities["narrow"]
    error_of_shift = np.hypot(a["mcse_in_sd"], b["mcse_in_sd"])
    error_of_ratio = np.hypot(a["sd_ratio_error"], b["sd_ratio_error"])
    assert (np.abs(a["mean_shift_in_sd"] - b["mean_shift_in_sd"]) < 4 * error_of_shift).all()
    assert (np.abs(a["sd_ratio"] - b["sd_ratio"]) < 4 * error_of_ratio).all()
    assert compare(reference, own).verdicts["nuts"].judgement == "good"
    assert (reference.info.divergences is None) == (kind == "file")


@pytest.mark.slow
def test_pyros_draws_judge_as_our_own_do(pyro_mcmc: MCMC, own: Posterior, narrow: Posterior) -> None:
    reference = Posterior.from_datatree(pyro_mcmc)
    assert reference.info.method == "pyro"
    assert reference.draws["w"].shape == (1, 1000, 3)
    assert reference.info.divergences is not None
    assert reference.info.divergences.shape == (1,)
    comparison = compare(own, reference, narrow)
    assert comparison.verdicts["pyro"].judgement == "good"
    frame = comparison.quantities["pyro"]
    assert (frame["mean_shift_in_sd"].abs() < 4.5 * frame["mcse_in_sd"]).all()
    assert compare(reference, narrow).verdicts["svi:mean_field"].judgement == "bad"


def test_divergent_transitions_of_others_count() -> None:
    diverging = np.zeros((4, 500), bool)
    diverging[1, 7] = diverging[1, 9] = True
    tree = from_dict(
        {"posterior": {"w": np.random.default_rng(0).normal(size=(4, 500))}, "sample_stats": {"diverging": diverging}}
    )
    reference = Posterior.from_datatree(tree)
    assert reference.info.divergences is not None
    assert reference.info.divergences.tolist() == [0, 2, 0, 0]
    refused = compare(reference, posterior_of(w=torch.randn(1, 2000))).refused
    assert refused is not None
    assert "2 transitions diverged" in refused


def test_chains_of_others_that_disagree_are_no_reference() -> None:
    w = np.random.default_rng(0).normal(size=(4, 500)) + np.arange(4)[:, None]
    reference = Posterior.from_datatree(from_dict({"posterior": {"w": w}}))
    assert not reference.info.converged
    comparison = compare(reference, posterior_of(w=torch.randn(1, 2000)))
    assert "chains disagree" in (comparison.refused or "")


def test_an_approximation_of_others_is_none_either() -> None:
    tree = from_dict({"posterior": {"w": np.random.default_rng(0).normal(size=(1, 2000))}})
    with pytest.warns(UserWarning, match=r"one chain, without a sampler's record.*guide="):
        Posterior.from_datatree(tree)
    advi = Posterior.from_datatree(tree, guide="advi")
    assert (advi.info.r_hat, advi.info.guide) == (None, "advi")
    assert "an approximation" in (compare(advi, posterior_of(w=torch.randn(1, 2000))).refused or "")


def test_advice_names_the_library() -> None:
    w = np.random.default_rng(0).normal(size=(4, 40)) / 10
    tree = from_dict({"posterior": {"w": w}}, attrs={"/": {"inference_library": "pymc"}})
    comparison = compare(Posterior.from_datatree(tree), posterior_of(w=torch.randn(1, 2000)))
    assert comparison.verdicts["pymc"].sentence.endswith(" draws per chain of pymc.")


@pytest.mark.parametrize(
    ("names", "shape"),
    [
        (["w[0]", "w[1]", "w[2]"], (3,)),
        (["w[1]", "w[2]", "w[3]"], (3,)),
        (["w[3]", "w[2]", "w[1]"], (3,)),
        (["w[1,1]", "w[1,2]", "w[2,1]", "w[2,2]"], (2, 2)),
        (["w[0, 0]", "w[0, 1]", "w[0, 2]", "w[1, 0]", "w[1, 1]", "w[1, 2]"], (2, 3)),
    ],
)
def test_entries_are_one_site(names: list[str], shape: tuple[int, ...]) -> None:
    values = {name: np.full((2, 10), position) for position, name in enumerate(names)}
    w = Posterior.from_datatree(from_dict({"posterior": values})).draws["w"]
    assert w.shape == (2, 10, *shape)
    ordered = sorted(range(len(names)), key=lambda position: names[position])
    assert w[0, 0].flatten().tolist() == ordered


def test_entries_that_fill_no_array_stay_apart() -> None:
    names = {"w[1]": (), "w[3]": (), "v[1]": (2,), "u": (), "u[1]": ()}
    values = {name: np.zeros((2, 10, *shape)) for name, shape in names.items()}
    assert Posterior.from_datatree(from_dict({"posterior": values})).draws.keys() == names.keys()


def test_what_draws_are_and_are_not() -> None:
    posterior = xr.Dataset(
        {
            "w": (("draw", "k", "chain"), np.arange(24.0).reshape(4, 3, 2)),
            "label": (("chain", "draw"), np.full((2, 4), "a")),
            "constant": ((), 3.0),
        }
    )
    draws = Posterior.from_datatree(posterior).draws
    assert draws.keys() == {"w"}
    assert draws["w"].shape == (2, 4, 3)
    assert torch.equal(draws["w"][1, :, 0], torch.tensor([1.0, 7.0, 13.0, 19.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="there are no draws in the group 'posterior'"):
        Posterior.from_datatree(posterior[["label"]])
    with pytest.raises(ValueError, match="from_datatree: dict is no DataTree, path or MCMC"):
        Posterior.from_datatree({"w": 3})


def test_files_that_cannot_be_read_are_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="from_datatree: no such file"):
        Posterior.from_datatree(tmp_path / "nothing.nc")
    (tmp_path / "noise.nc").write_bytes(b"noise")
    with pytest.raises(ValueError, match=r"noise.nc cannot be read .* pip install h5netcdf"):
        Posterior.from_datatree(tmp_path / "noise.nc")


def test_a_netcdf_file_with_groups(tmp_path: Path, tree: xr.DataTree) -> None:
    pytest.importorskip("h5netcdf")
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    found = Posterior.from_datatree(tmp_path / "tree.nc")
    assert found.draws.keys() == {"model/slope", "model/level", "model/mean"}
    assert found.info.divergences is not None


def funnel() -> None:
    """Neal (2003): steps that suit the mouth diverge in the neck."""
    v = pyro.sample("v", dist.Normal(0.0, 3.0))
    with pyro.plate("entries", 9):
        pyro.sample("x", dist.Normal(0.0, (v / 2).exp()))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of divergences
@pytest.mark.parametrize("method", ["nuts", "hmc"])
def test_which_transitions_diverged_is_kept(method: str) -> None:
    how = {"num_draws": 120, "num_warmup": 40, "num_chains": 1, "target_accept": 0.3, "progress": False}
    posterior = nuts(funnel, engine="xla", **how) if method == "nuts" else hmc(funnel, trajectory_length=1.0, **how)
    diverging, count = posterior.info.diverging, posterior.info.divergences
    assert diverging is not None
    assert count is not None
    assert diverging.shape == (1, 120)
    assert torch.equal(diverging.sum(1), count)
    assert 0 < int(count.sum()) < 120
    assert np.array_equal(posterior.to_datatree()["sample_stats"]["diverging"], diverging)


def test_data_by_name_give_the_same_tree(fitted: Posterior, tree: xr.DataTree) -> None:
    x, group, y = DATA
    named = {"group": pd.Series(pd.Categorical(np.array(list("abcd"))[group])), "y": y.numpy()}
    found = fitted.to_datatree(grouped, (pd.DataFrame(x.numpy(), columns=["age", "height"]),), model_kwargs=named)
    for kind in ("log_likelihood", "observed_data", "constant_data"):
        for name, value in tree[kind].items():
            np.testing.assert_allclose(found[kind][name], value, rtol=1e-6, atol=1e-6)
    assert list(found["posterior"]["model.slope"].coords["model.slope_dim_0"].to_numpy()) == ["age", "height"]
    with pytest.raises(ValueError, match="to_datatree: the model has no argument 'z': it has x, group, y"):
        fitted.to_datatree(grouped, (x,), model_kwargs={"z": y})
