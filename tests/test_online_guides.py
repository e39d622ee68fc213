"""Guides and models that learn from batches by gradients: beside closed forms, and steps taken by hand."""

import math
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoDelta
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, constraints, kl_divergence
from torch.utils.data import DataLoader, TensorDataset
from zoo import latent, linear

from guidebook import guides
from guidebook.inference import Posterior, online, svi
from guidebook.inference.streams.batches import StreamBatches
from guidebook.models import gmm, vae
from guidebook.workflow.calibrate import calibrate
from guidebook.workflow.fit import fit, load_task
from guidebook.workflow.resolve import split_method

QUIET: dict[str, Any] = {"progress": False}
FACTORS = {"latent_dim": 2, "network": "linear"}
DECODER = partial(vae.model, likelihood="gaussian", shared_variance=True, **FACTORS)
ENCODER = partial(guides.vae.full_covariance_encoder, **FACTORS)


def in_order(*values: Tensor, size: int) -> Any:
    """Return rows that are read in their own order, batch by batch."""
    return DataLoader(TensorDataset(*values), size, sampler=range(len(values[0])))


def rows_of_ppca(rows: int) -> tuple[Tensor, MultivariateNormal]:
    """Return rows of a factor model, and their true distribution."""
    generator = torch.Generator().manual_seed(0)
    loadings, noise, z = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 2), (rows, 5), (rows, 2))
    )
    mean = torch.arange(5.0).double()
    covariance = loadings @ loadings.mT + 0.25 * torch.eye(5).double()
    return mean + z @ loadings.mT + 0.5 * noise, MultivariateNormal(mean, covariance)


def test_an_autoencoder_with_a_linear_decoder_comes_as_near_to_ppcas_maximum_as_the_truth() -> None:
    """Tipping and Bishop (1999): the maximum has a closed form, which the truth misses by half a nat per parameter."""
    x, truth = rows_of_ppca(1000)
    found = online(DECODER, ENCODER, x, batch_size=50, num_epochs=20, lr=1.0, **QUIET)
    loadings, params = found.params["decoder.mean.weight"], found.params
    loadings = loadings if loadings.shape[0] == 5 else loadings.mT
    covariance = loadings @ loadings.mT + params["decoder.noise"] * torch.eye(5)
    reached = MultivariateNormal(params["decoder.mean.bias"], covariance).log_prob(x)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.mT, correction=0)).flip(0)
    rest = eigenvalues[2:].mean()
    best = -0.5 * len(x) * (5 * math.log(2 * math.pi) + eigenvalues[:2].log().sum() + 3 * rest.log() + 5)
    assert float(truth.log_prob(x).sum()) < float(reached.sum()) <= float(best)
    # The guide holds the exact posterior, so that the bound is tight.
    scores = found.info.scores[-60:]
    assert float(scores.mean()) == pytest.approx(float(reached.mean()), abs=4 * float(reached.std()) / math.sqrt(3000))
    assert found.info.elbo == pytest.approx(float(found.info.scores[-40:].mean()) * len(x))
    assert found.info.learned == sorted(name for name in params if name.startswith("decoder."))


def test_centre_and_spread_of_rows_are_learned_by_a_users_own_model_and_encoder() -> None:
    """Maximum likelihood is known: it is missed by less than half the error of the rows themselves."""
    x = latent.data(2000)
    centre, spread = latent.maximum(x)
    found = online(latent.model, latent.encoder, x, batch_size=50, num_epochs=10, lr=2.5, **QUIET).params
    scale = float((spread**2 + 1).sqrt())
    assert abs(float(found["centre"] - centre)) < 0.5 * scale / math.sqrt(len(x))
    assert abs(float(found["spread"] - spread)) < 0.5 * scale / math.sqrt(2 * len(x)) * scale / float(spread)
    slope = spread**2 / (spread**2 + 1)
    assert float(found["slope"]) == pytest.approx(float(slope), abs=0.02)
    assert float(found["scale"]) == pytest.approx(float(slope.sqrt()), abs=0.05)


@pytest.mark.parametrize("times", [1, 4])
def test_a_global_latent_variable_is_learned_as_if_there_were_so_many_rows(times: int) -> None:
    """Mean-field's optimum: the exact mean, variances by the precision's diagonal (Bishop 2006, section 10.1.2)."""
    x, y = linear.data(400)
    every = x.repeat(times, 1), y.repeat(times)
    exact, bound = linear.posterior(*every), linear.log_evidence(*every)
    how: dict[str, Any] = {"batch_size": 100, "num_epochs": 200, "lr": 4.0, "num_draws": 10_000, **QUIET}
    found = online(linear.model, guides.mean_field, (x, y), num_rows=400 * times, **how)
    w, sd = found.samples["w"], exact.precision_matrix.diagonal().rsqrt()
    assert ((w.mean(0) - exact.mean).abs() / exact.stddev).max() < 0.25
    torch.testing.assert_close(w.std(0), sd, rtol=0.12, atol=0)
    torch.testing.assert_close(found.samples["total"], w.sum(-1))
    divergence = float(kl_divergence(MultivariateNormal(exact.mean, sd.diag() ** 2), exact))
    assert found.info.elbo_se is not None
    assert found.info.elbo == pytest.approx(bound - divergence, abs=3 * found.info.elbo_se)


def slope_model(x: Tensor, y: Tensor) -> None:
    """Nothing is random but y."""
    slope = pyro.param("slope", lambda: x.new_tensor([0.5, -0.5]))
    noise = pyro.param("noise", lambda: x.new_ones(()), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("y", dist.Normal(x @ slope, noise), obs=y)


def nothing(x: Tensor, y: Tensor) -> None:
    """Guide no latent variable."""


@pytest.mark.parametrize(("optim", "lr"), [(torch.optim.Adam, 0.3), (torch.optim.SGD, 2.0), (torch.optim.RMSprop, 0.1)])
def test_steps_are_those_of_torchs_optimisers_with_a_rate_that_decays(optim: Any, lr: float) -> None:
    """On the mean log density of a batch, which is the score before the step; late iterates weigh more."""
    x = torch.randn(120, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = x @ torch.tensor([1.0, 2.0]).double() + 0.3 * torch.sin(40 * x[:, 0])
    how: dict[str, Any] = {"decay": 0.8, "offset": 3.0, "lr": lr, "optim": optim, "num_rows": 7000, **QUIET}
    found = online(slope_model, nothing, in_order(x, y, size=20), num_epochs=2, **how)
    slope = torch.tensor([0.5, -0.5], dtype=torch.float64, requires_grad=True)
    log_noise = torch.zeros((), dtype=torch.float64, requires_grad=True)
    rule, scores, mean = optim([slope, log_noise], lr=lr), [], torch.zeros(3).double()
    for t in range(1, 13):
        rows = slice(20 * ((t - 1) % 6), 20 * ((t - 1) % 6) + 20)
        rule.param_groups[0]["lr"] = lr * (3.0 + t) ** -0.8
        rule.zero_grad()
        loss = -Normal(x[rows] @ slope, log_noise.exp()).log_prob(y[rows]).mean()
        loss.backward()
        rule.step()
        scores.append(-float(loss.detach()))
        mean = mean + 4 / (3 + t) * (torch.cat([slope, log_noise[None]]).detach() - mean)
    torch.testing.assert_close(found.info.scores, torch.tensor(scores).double())
    torch.testing.assert_close(found.params["slope"], mean[:2])
    torch.testing.assert_close(found.params["noise"], mean[2].exp())


def same(one: Posterior, two: Posterior) -> None:
    """Parameters, draws and scores are equal to the bit."""
    assert one.params.keys() == two.params.keys()
    for name, value in one.params.items():
        assert torch.equal(value, two.params[name]), name
    for name, value in one.draws.items():
        assert torch.equal(value, two.draws[name]), name


@pytest.mark.parametrize("optim", [None, partial(torch.optim.SGD, momentum=0.5)])
def test_fits_that_go_on_from_one_another_are_one_fit(optim: Any, tmp_path: Path) -> None:
    """To the bit, if rows come in the same order; also by way of a file."""
    x = rows_of_ppca(600)[0]
    how: dict[str, Any] = {"optim": optim, "seed": 3, "num_rows": 600, "lr": 0.05, **QUIET}
    whole = online(DECODER, ENCODER, in_order(x, size=50), **how)
    first = online(DECODER, ENCODER, in_order(x[:250], size=50), **how)
    first.save(tmp_path / "first.safetensors")
    second = online(
        DECODER, ENCODER, in_order(x[250:], size=50), init=Posterior.load(tmp_path / "first.safetensors"), **how
    )
    same(second, whole)
    assert torch.equal(torch.cat([first.info.scores, second.info.scores]), whole.info.scores)
    assert (second.info.num_batches, second.info.num_rows) == (12, 600)
    # Without the optimiser's memory and the count of steps, it is another beginning.
    again = online(DECODER, ENCODER, in_order(x[250:], size=50), init=first.params, **how)
    assert not torch.equal(again.info.scores, second.info.scores)
    assert again.info.num_batches == 7


def test_a_fit_that_was_stopped_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = linear.data(400)
    how: dict[str, Any] = {"batch_size": 40, "num_epochs": 3, "num_draws": 5, **QUIET}
    whole = online(linear.model, guides.full_rank, x, y, **how)
    take, taken = StreamBatches.__next__, []

    def stopping(self: StreamBatches) -> tuple:
        taken.append(None)
        if len(taken) == 17:
            raise KeyboardInterrupt
        return take(self)

    with monkeypatch.context() as patch:
        patch.setattr(StreamBatches, "__next__", stopping)
        with pytest.raises(KeyboardInterrupt):
            online(linear.model, guides.full_rank, x, y, checkpoint=tmp_path, every=0.0, **how)
    again = online(linear.model, guides.full_rank, x, y, checkpoint=tmp_path, every=0.0, **how)
    same(again, whole)
    assert torch.equal(again.info.scores, whole.info.scores)


def test_it_goes_on_from_svi_and_svi_from_it() -> None:
    x = rows_of_ppca(400)[0]
    fitted = svi(DECODER, ENCODER, x, batch_size=50, num_steps=100, num_draws=2, **QUIET)
    after = online(DECODER, ENCODER, x, batch_size=50, init=fitted, offset=1e4, **QUIET)
    assert (after.params["decoder.mean.weight"] - fitted.params["decoder.mean.weight"]).abs().max() < 0.05
    back = svi(DECODER, ENCODER, x, batch_size=50, num_steps=1, lr=1e-6, init=after, num_draws=2, **QUIET)
    torch.testing.assert_close(back.params["decoder.noise"], after.params["decoder.noise"], rtol=1e-4, atol=0)
    assert set(after.params) == set(fitted.params)
    assert vae.encode(after.params, x)[0].shape == (400, 2)


def test_options_change_what_they_say() -> None:
    x, y = linear.data(400)
    how: dict[str, Any] = {"batch_size": 40, "num_draws": 7, **QUIET}
    usual = online(linear.model, guides.mean_field, x, y, **how)
    name = next(name for name in usual.params if "loc" in name)
    options: tuple[dict[str, Any], ...] = (
        {"decay": 0.9},
        {"offset": 1.0},
        {"lr": 0.01},
        {"optim": torch.optim.SGD},
        {"num_epochs": 2},
        {"batch_size": 20},
        {"seed": 1},
    )
    for option in options:
        other = online(linear.model, guides.mean_field, x, y, **{**how, **option})
        assert (other.params[name] - usual.params[name]).abs().max() > 1e-4, option
    assert usual.draws["w"].shape == (1, 7, 3)
    same(online(linear.model, (x, y), guide=guides.mean_field, device="cpu", **how), usual)
    same(online(linear.model, guides.mean_field, model_kwargs={"x": x, "y": y}, **how), usual)
    point = online(linear.model, AutoDelta, x, y, **how)
    assert point.info.is_point
    assert point.draws["w"].shape == (1, 1, 3)
    assert point.info.elbo is None


def global_only(x: Tensor) -> None:
    """No plate over the rows."""
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 1.0))
    pyro.sample("x", dist.Normal(mean.expand(x.shape), 1.0).to_event(x.dim()), obs=x)


def test_what_cannot_be_learned_so_is_refused_in_a_sentence() -> None:
    x, y = linear.data(100)
    rows, steps = latent.data(100), gmm.online_steps(2)

    def refused(sentence: str, *args: Any, error: type[Exception] = ValueError, **options: Any) -> None:
        with pytest.raises(error, match=f"^{sentence}"):
            online(*args, **{"batch_size": 10, **QUIET, **options})

    fits = (linear.model, guides.mean_field, (x, y))
    refused("online: decay must lie between 0.5, exclusive, and 1, got 0.5", *fits, decay=0.5)
    refused("online: offset must be at least 0, got -1", *fits, offset=-1)
    refused("online: lr must be positive, got 0", *fits, lr=0)
    refused("online: Adagrad is none of the optimisers", *fits, optim=torch.optim.Adagrad)
    refused("online: betas in optim must lie in", *fits, optim={"betas": (1.5, 0.9)})
    refused("online: site 'z' has a value for each row", latent.model, guides.mean_field, rows)
    refused("online: batch_size needs a pyro.plate over", global_only, guides.mean_field, rows)
    refused("online: batch_size must lie between 1 and the number of rows, 5", *fits, num_rows=5)
    refused("online: Laplace's approximation needs the Hessian of all rows", linear.model, guides.laplace, (x, y))
    refused("online: give the rows, after a model and its guide", linear.model)
    refused("online: give the rows, after a model and its guide", linear.model, guides.mean_field)
    refused("online: guide must be a guide or a guide family, got Tensor: write online", linear.model, x, y)
    refused("online: lr belongs to a model and its guide", steps, x, lr=0.1)
    refused("online: model_kwargs belong to a model and its guide", steps, x, model_kwargs={"a": 1})
    before = online(*fits, batch_size=10, **QUIET)
    refused("online: init was learned by Adam, whose memory SGD", *fits, init=before, optim=torch.optim.SGD)
    broken = x.clone()
    broken[77] = math.nan
    with pytest.raises(ArithmeticError, match=r"^online: the score is nan at batch 7: .*'y'"):
        online(linear.model, guides.mean_field, in_order(broken, y, size=10), **QUIET)


def test_the_command_takes_a_models_own_steps_or_its_guide() -> None:
    """Own steps where there are some and no guide is named; otherwise gradients, by default in batches of 128."""
    flowers = load_task("gmm", settings=["num_epochs=2", "decay=0.6", "offset=3"])
    how: dict[str, Any] = {"num_epochs": 2, "decay": 0.6, "offset": 3.0, "batch_size": 50, **QUIET}
    same(fit(flowers, "online"), online(gmm.online_steps(3), *flowers.args, **how))
    assert split_method(flowers.row, "online") == ("online", None)
    assert split_method(flowers.row, "online:mean_field") == ("online", "mean_field")
    assert fit(flowers, "online", "mean_field").info.guide == "mean_field"
    images = load_task("vae", settings=["num_epochs=1", "optim=rmsprop", "lr=0.1", "hidden=8"])
    how = {"batch_size": 128, "optim": torch.optim.RMSprop, "lr": 0.1, "num_draws": 1, **QUIET}
    by_hand = online(partial(vae.model, hidden=8), partial(guides.vae.encoder, hidden=8), *images.args, **how)
    found = fit(images, "online", draws=1)
    for name, value in by_hand.params.items():
        assert torch.equal(value, found.params[name]), name
    patients = load_task("linear", settings=["num_epochs=1"])  # whose prior is worked out from all rows
    assert fit(patients, "online").info.num_batches == len(patients.args[0]) // 128
    with pytest.raises(ValueError, match="online: lr belongs to a model and its guide"):
        fit(load_task("gmm", settings=["lr=0.1"]), "online")
    with pytest.raises(ValueError, match=r"nuts takes no guide .*: guides belong to svi and online"):
        split_method(flowers.row, "nuts:mean_field")
    with pytest.raises(ValueError, match="calibrate: online learns rows as they come"):
        calibrate(flowers, "online", None, counts={})
