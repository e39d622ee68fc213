"""SVI of models with parameters of their own, losses by name, and what is kept of the rows' own sites."""

from functools import partial

import pytest
import torch
from pyro.infer import RenyiELBO
from zoo import latent

from guidebook import guides
from guidebook.inference import svi
from guidebook.inference.optim.losses import named_loss
from guidebook.models import mixture


@pytest.mark.parametrize("alternate", [None, 10])
def test_jointly_and_in_turn_meet_at_the_maximum(alternate: int | None) -> None:
    x = latent.data()
    posterior = svi(
        latent.model, latent.encoder, x, num_steps=3000, lr=0.03, alternate=alternate, num_draws=500, progress=False
    )
    best = latent.log_likelihood(*latent.maximum(x), x)
    reached = latent.log_likelihood(posterior.params["centre"], posterior.params["spread"], x)
    assert best - reached < 1e-3 * len(x)
    assert best - posterior.info.elbo < 1e-3 * len(x)  # the encoder holds the exact posterior
    torch.testing.assert_close(posterior.draws["centre"], posterior.params["centre"].expand(1, 500))


def test_the_guide_moves_first_and_then_the_model() -> None:
    x = latent.data(20)

    def moved(num_steps: int, alternate: int | None) -> tuple[bool, bool]:
        options = {"num_steps": num_steps, "alternate": alternate, "num_draws": 2, "progress": False}
        fit = svi(latent.model, latent.encoder, x, **options)
        return float(fit.params["shift"]) != 0, float(fit.params["centre"]) != 0

    assert moved(3, None) == (True, True)
    assert moved(3, 3) == (True, False)
    assert moved(4, 3) == (True, True)


def test_alternate_needs_two_sets_of_parameters() -> None:
    x = latent.data(10)
    fixed = partial(latent.model)
    with pytest.raises(ValueError, match="alternate must be at least 1"):
        svi(fixed, latent.encoder, x, alternate=0, progress=False)

    def without(x: torch.Tensor) -> None:
        import pyro
        import pyro.distributions as dist

        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match="and the model has none"):
        svi(without, latent.encoder, x, alternate=2, num_steps=2, progress=False)


@pytest.mark.parametrize(("local", "kept"), [(None, True), (True, True), (False, False)])
def test_draws_of_the_rows_own_sites_are_optional(local: bool | None, kept: bool) -> None:
    x = latent.data(20)
    posterior = svi(latent.model, latent.encoder, x, num_steps=3, num_draws=50, local_draws=local, progress=False)
    assert ("z" in posterior.draws) == kept
    assert posterior.draws["centre"].shape == ((1, 50) if kept else (1, 1))
    assert posterior.info.elbo is not None  # from all 50 draws, kept or not
    assert len(posterior.info.log_weights) == 50


def test_local_draws_are_dropped_where_they_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guidebook.inference.traces.draws.MAX_LOCAL", 900)
    x = latent.data(20)
    assert "z" not in svi(latent.model, latent.encoder, x, num_steps=3, num_draws=50, progress=False).draws


@pytest.mark.parametrize("loss", ["trace", "mean_field", "graph", "renyi", "iwae"])
def test_losses_by_name_train(loss: str) -> None:
    """Every bound is the likelihood once the encoder is exact, whatever its order."""
    x = latent.data(50)
    particles = 2 if loss in ("renyi", "iwae") else 1
    posterior = svi(
        latent.model,
        latent.encoder,
        x,
        loss=loss,
        num_particles=particles,
        num_steps=1500,
        lr=0.03,
        num_draws=200,
        progress=False,
    )
    best = latent.log_likelihood(*latent.maximum(x), x)
    assert best - posterior.info.elbo < 0.01 * len(x)
    assert posterior.info.losses[-300:].mean() == pytest.approx(-best, abs=0.02 * len(x))


def test_names_and_orders_of_losses() -> None:
    iwae = named_loss("iwae", 5)
    assert isinstance(iwae, RenyiELBO)
    assert iwae.alpha == 0
    for options, words in (
        (("elbo",), "unknown loss 'elbo': there is trace"),
        (("iwae", 1), "take num_particles of 2 or more"),
        (("trace", 0), "num_particles must be at least 1"),
    ):
        with pytest.raises(ValueError, match=words):
            named_loss(*options)
    with pytest.raises(ValueError, match="alpha must differ from 1"):
        named_loss("renyi", 2, alpha=1.0)


def test_the_enumerating_loss_by_name_finds_the_depth_of_plates_without_a_word(capfd: pytest.CaptureFixture) -> None:
    x, _ = mixture.simulate(40, num_components=2)
    fitted = svi(
        partial(mixture.latent_model, num_components=2),
        partial(guides.mixture.structured, num_components=2),
        x,
        loss="enum",
        num_steps=200,
        num_draws=10,
        progress=False,
    )
    assert "max_plate_nesting" not in capfd.readouterr().err
    assert fitted.info.losses[-20:].mean() < fitted.info.losses[:20].mean()
