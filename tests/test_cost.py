"""What is estimated before a fit, and what is left out of it for its size."""

import importlib

import numpy as np
import pyro
import pytest
import torch

from guidebook.inference import Posterior, check
from guidebook.inference.mcmc import moved
from guidebook.models import factor_analysis, gmm, lda, linear_gaussian, ppca, vae
from guidebook.workflow import cost
from guidebook.workflow.fit import fit, load_task
from guidebook.workflow.output import print_run, run_json
from guidebook.workflow.rows import parameter_table

check_module = importlib.import_module("guidebook.inference.check")  # the package has a function of that name


def test_numbers_per_draw_are_those_of_the_sites() -> None:
    x = torch.randn(30, 5, dtype=torch.float64)
    assert cost.numbers_per_draw(ppca.model, (x,)) == {"W": 10, "loc": 5, "noise_variance": 1}
    sizes = cost.numbers_per_draw(gmm.model, (x,))
    assert sizes == {"covariance": 75, "bartlett_upper": 30, "bartlett_diagonal": 15, "loc": 15, "weights": 3}
    assert next(iter(sizes)) == "covariance"
    counts = torch.ones(30, 5, dtype=torch.float64)
    assert cost.numbers_per_draw(lda.model, (counts,)) == {"topic_weights": 600, "topic_words": 100}
    assert cost.numbers_per_draw(lda.model, (counts,), with_local=False) == {"topic_words": 100}
    state = torch.get_rng_state()
    cost.numbers_per_draw(ppca.model, (x,))
    cost.numbers_per_draw(vae.model, (counts,))
    assert torch.equal(torch.get_rng_state(), state)
    assert not list(pyro.get_param_store())


@pytest.mark.parametrize(
    ("numbers", "wanted", "draws"),
    [(419, 10_000, 10_000), (420, 10_000, 9986), (10**6, 10_000, 1000), (10**6, 200, 200)],
)
def test_fewer_draws_of_many_numbers(numbers: int, wanted: int, draws: int) -> None:
    assert cost.affordable_draws(wanted, {"a": numbers - 1, "b": 1}) == draws


def test_draws_beyond_memory_are_refused_by_the_largest_site() -> None:
    sizes = {"covariance": 900, "loc": 100}
    needed = cost.COPIES * 8 * 1000 * 1000
    cost.check_memory("gmm", 1000, sizes, available=needed)
    with pytest.raises(
        ValueError, match="gmm: 1,000 draws of 1,000 numbers each, 900 of them in covariance, take about"
    ):
        cost.check_memory("gmm", 1000, sizes, available=needed - 1)


def test_a_fit_asks_before_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("ppca")
    monkeypatch.setattr(cost, "free_memory", lambda: 10_000)
    with pytest.raises(ValueError, match="ppca: 10,000 draws of 40 numbers each, 26 of them in W"):
        fit(task, "svi", "mean_field")
    assert fit(task, "closed_form").draws["W"].shape[:2] == (1, 1)


def wide(module, columns: int) -> tuple[Posterior, torch.Tensor]:
    x, truth = module.simulate(30, latent_dim=2, num_features=columns, seed=0)
    sites = {name: truth[name].expand(1, 3, *truth[name].shape) for name in ("W", "loc", "noise_variance")}
    return sites, x


@pytest.mark.parametrize("module", [ppca, factor_analysis])
def test_many_columns_have_variances_and_strengths_that_no_rotation_changes(module) -> None:
    assert module.overview(wide(module, 40)[0]).keys() == {"loc", "covariance", "noise_variance"}
    sites, _ = wide(module, 41)
    found = module.overview(sites)
    assert found.keys() == {"loc", "variance", "noise_variance", "strength"}
    covariance = linear_gaussian.identify(sites)["covariance"]
    torch.testing.assert_close(found["variance"], covariance.diagonal(dim1=-2, dim2=-1))
    noise = sites["noise_variance"][0, 0].expand(41).numpy()
    scaled = covariance[0, 0].numpy() / np.sqrt(np.outer(noise, noise))
    np.testing.assert_allclose(found["strength"][0, 0], np.linalg.eigvalsh(scaled)[::-1][:2] - 1)
    angle = torch.tensor(0.7).double()
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
    for name, value in module.overview(sites | {"W": sites["W"] @ turn}).items():
        torch.testing.assert_close(value, found[name])


def test_a_check_that_would_take_too_long_is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("logistic", "breast_cancer")
    posterior = fit(task, "svi", "laplace")
    for each, chains, says in ((0.01, 100, ""), (0.02, 50, ""), (0.04, 32, "32 short chains would take about 1 s")):
        monkeypatch.setattr(check_module, "seconds_per_chain", lambda *_, each=each: each)
        seen = []
        # It returns None: as if nothing were finite.
        monkeypatch.setattr(check_module, "move_draws", lambda *given, seen=seen: seen.append(given[3]))
        found = check(posterior, task.model, *task.args, max_seconds=1.0, progress=False)
        assert seen == ([] if says else [chains])
        assert (found.judgement == "cannot say") == bool(says)
        assert says in found.sentence


def test_seconds_per_chain_grow_with_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    class Target:
        def vectors(self, draws):
            return draws["a"]

        def batched(self, vectors):
            clock[0] += 2.0

    clock = [0.0]
    monkeypatch.setattr(moved.time, "perf_counter", lambda: clock[0])
    seconds = moved.seconds_per_chain(Target(), {"a": torch.zeros(1, 16, 1)})
    leapfrogs = moved.LENGTH / 1.1
    assert seconds == pytest.approx(2 / 16 * leapfrogs * (moved.WARM_UP + moved.READJUST + moved.WINDOWS[0]))


def test_printed_names_keep_their_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    task = load_task("ppca")
    print_run(run_json(task, fit(task, "closed_form")), task.coords)
    assert "loc[alcohol]" in capsys.readouterr().out


def test_parameters_have_figures_of_their_draws() -> None:
    draws = torch.randn(4, 500, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = parameter_table({"w": draws, "b": torch.ones(1, 1)}, {"w": [["age", "height"]]})
    assert table["quantity"].tolist() == ["w[age]", "w[height]", "b"]
    flat = draws.reshape(-1, 2).numpy()
    np.testing.assert_allclose(table["mean"], [*flat.mean(0), 1])
    np.testing.assert_allclose(table[["low", "high"]][:2], np.quantile(flat, [0.05, 0.95], axis=0).T)
    np.testing.assert_allclose(table["sd"][:2], flat.std(0, ddof=1))
    assert table.iloc[2, 2:].isna().all()
    assert (table["ess"][:2] > 1000).all()
