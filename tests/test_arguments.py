"""Data as users have it: arrays, frames, lists, whole numbers and truth values, by position and by name."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from guidebook.guides import mean_field
from guidebook.inference import (
    Posterior,
    check,
    coords,
    dadvi,
    discrete_draws,
    elbo_gradients,
    evidence,
    fit,
    hmc,
    log_likelihood,
    loo,
    mcem,
    metropolis,
    nuts,
    pathfinder,
    posterior_predictive,
    svi,
)
from guidebook.inference.traces.arguments import as_data, names_of

RNG = np.random.default_rng(0)
Y = RNG.normal(1.0, 1.0, 25)
PRECISION = len(Y) + 1 / 100  # of mu, in closed form
MEAN, SD = Y.sum() / PRECISION, PRECISION**-0.5


def normal(y: Tensor, scale: float = 1.0) -> None:
    mu = pyro.sample("mu", dist.Normal(0.0, 10.0 * scale))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


def by_name(*, y: Tensor, scale: float = 1.0) -> None:
    normal(y, scale)


def guide(*, y: Tensor) -> None:
    loc = pyro.param("loc", torch.tensor(0.5))
    pyro.sample("mu", dist.Normal(loc, pyro.param("sd", torch.tensor(0.3), constraint=dist.constraints.positive)))


@pytest.mark.parametrize(
    "y",
    [Y, pd.Series(Y), pd.Series(Y, dtype="Float64"), torch.tensor(Y), Y.astype(np.longdouble), pd.Index(Y)],
    ids=["array", "series", "nullable", "tensor", "longdouble", "index"],
)
def test_the_posterior_is_the_same_whatever_the_data_come_in(y: Any) -> None:
    for found in (dadvi(normal, y, progress=False), dadvi(by_name, model_kwargs={"y": y}, progress=False)):
        assert found.draws["mu"].dtype == torch.float64
        assert float(found.draws["mu"].mean()) == pytest.approx(MEAN, abs=0.01 * SD)
        assert float(found.draws["mu"].std()) == pytest.approx(SD, rel=0.02)


def test_a_list_is_in_the_default_dtype() -> None:
    assert dadvi(normal, Y.tolist(), progress=False).draws["mu"].dtype == torch.float32


CALLS: dict[str, Callable[..., Any]] = {
    "dadvi": dadvi,
    "pathfinder": pathfinder,
    "nuts": lambda m, **o: nuts(m, num_draws=100, num_warmup=100, num_chains=1, engine="pyro", **o),
    "hmc": lambda m, **o: hmc(m, num_draws=100, num_warmup=100, num_chains=1, **o),
    "metropolis": lambda m, **o: metropolis(m, num_draws=50, num_warmup=200, thin=5, num_chains=1, **o),
    "svi, a family": lambda m, **o: svi(m, mean_field, num_steps=50, **o),
    "svi, a function": lambda m, **o: svi(m, guide, num_steps=50, **o),
    "svi, an autoguide": lambda m, **o: svi(m, AutoNormal(m), num_steps=50, **o),
    "dadvi, a function": lambda m, **o: dadvi(m, guide=guide, **o),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ("nuts", "hmc") else name for name in CALLS]
)
def test_every_method_takes_data_and_options_by_name(name: str) -> None:
    """A prior scale of .001 holds the mean at zero; its default leaves it at the data's."""
    call = CALLS[name]
    free = call(by_name, model_kwargs={"y": Y}, progress=False)
    assert float(free.draws["mu"].mean()) == pytest.approx(MEAN, abs=4 * SD)
    if "function" not in name and "autoguide" not in name and "family" not in name:
        held = call(by_name, model_kwargs={"y": Y, "scale": 0.001}, progress=False)
        assert float(held.draws["mu"].abs().mean()) < 0.05
    judged = check(free, by_name, model_kwargs={"y": Y}, num_chains=32, progress=False)
    assert list(judged.table.index) == ["mu"]


def test_what_else_takes_a_model_takes_its_arguments_by_name() -> None:
    found = fit(by_name, model_kwargs={"y": Y}, progress=False)
    assert float(found.draws["mu"].mean()) == pytest.approx(MEAN, abs=0.02 * SD)
    by_position = evidence(normal, Y, method="naive", num_draws=500)
    assert evidence(by_name, model_kwargs={"y": Y}, method="naive", num_draws=500).estimate == by_position.estimate
    gradients = elbo_gradients(by_name, guide, model_kwargs={"y": Y}, num_draws=20)
    assert set(gradients) == {"loc", "sd"}


def test_a_trained_guide_is_judged_with_arguments_by_name() -> None:
    autoguide = AutoNormal(by_name)
    loss = pyro.infer.SVI(by_name, autoguide, pyro.optim.Adam({"lr": 0.05}), pyro.infer.Trace_ELBO())
    y = torch.tensor(Y, dtype=torch.float32)
    for _ in range(300):
        loss.step(y=y)
    before = autoguide.model
    judged = check(autoguide, by_name, model_kwargs={"y": y}, num_chains=32, progress=False)
    assert judged.judgement in ("good", "usable", "bad")
    assert autoguide.model is before


@pytest.mark.filterwarnings("ignore:svi")
def test_a_modules_weights_are_learnt_with_arguments_by_name() -> None:
    class Shift(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.tensor(0.0))
            self.mu = PyroSample(dist.Normal(0.0, 0.1))

        def forward(self, *, y: Tensor) -> None:
            mean = self.mu + self.shift
            with pyro.plate("rows", len(y)):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    model = Shift()
    found = svi(model, mean_field, model_kwargs={"y": Y}, num_steps=300, lr=0.05, progress=False)
    assert float(found.params["shift"]) == pytest.approx(Y.mean(), abs=0.1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mcem_takes_data_by_name() -> None:
    def latent(*, y: Tensor) -> None:
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("y", dist.Normal(z, 0.5), obs=y)

    found = mcem(latent, model_kwargs={"y": torch.tensor(Y, dtype=torch.float32)}, num_steps=150, progress=False)
    assert float(found.params["loc"]) == pytest.approx(Y.mean(), abs=0.3)


def test_whole_numbers_and_truth_values_are_observed_as_their_distribution_wants_them() -> None:
    """Beta(1 + successes, 1 + failures), and an index that stays whole."""
    y = RNG.integers(0, 2, 60)
    group = np.arange(60) % 2

    def coins(y: Tensor, group: Tensor) -> None:
        with pyro.plate("groups", 2):
            p = pyro.sample("p", dist.Beta(1.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Bernoulli(p[group]), obs=y)

    for data in (y, y.astype(bool), pd.Series(y, dtype="boolean"), y.astype(np.uint8), y.tolist(), y.astype(float)):
        p = dadvi(coins, data, pd.Series(group), progress=False).draws["p"].flatten(0, 1)
        ones = np.array([y[group == g].sum() for g in (0, 1)])
        np.testing.assert_allclose(p.mean(0), (1 + ones) / 32, atol=0.01)


def test_discrete_draws_take_arguments_by_name() -> None:
    def mixture(*, y: Tensor) -> None:
        mu = pyro.sample("mu", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("y", dist.Normal(mu + 50 * z, 1.0), obs=y)

    y = torch.tensor([0.0, 0.5, 50.0, 51.0])
    posterior = Posterior({"mu": torch.zeros(1, 3)}, dadvi(normal, Y, progress=False).info)
    z = discrete_draws(posterior, mixture, model_kwargs={"y": y})["z"]
    assert torch.equal(z[0, 0], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_a_frame_is_a_matrix_with_names() -> None:
    frame = pd.DataFrame({"age": [1, 2], "dose": [0.5, 1.5], "ill": [True, False]})
    expected = torch.tensor([[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]], dtype=torch.float64)
    assert torch.equal(as_data("", frame), expected)
    assert names_of(frame) == ("age", "dose", "ill")
    series = pd.Series(["b", "a", "b"], dtype="category")
    assert torch.equal(as_data("", series), torch.tensor([1, 0, 1]))
    assert names_of(series) == ("a", "b")


def test_sites_are_named_by_columns_and_categories() -> None:
    """A weight per column, an intercept per category; a site of the same size as neither keeps its numbers."""

    def model(X: Tensor, *, city: Tensor, y: Tensor, size: int = 2) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([3, X.shape[1]]).to_event(2))
        pyro.sample("other", dist.Normal(0.0, 1.0).expand([size]).to_event(1))
        with pyro.plate("cities", int(city.max()) + 1):
            a = pyro.sample("a", dist.Normal(0.0, 1.0))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(X @ w[0] + a[city], 1.0), obs=y)

    frame = pd.DataFrame({"age": Y, "dose": Y[::-1]})
    city = pd.Series(["Ulm", "Bonn", "Ulm", "Köln", "Bonn"] * 5, dtype="category")
    found = coords(model, frame, model_kwargs={"city": city, "y": Y})
    assert found == {"w": [["0", "1", "2"], ["age", "dose"]], "a": [["Bonn", "Köln", "Ulm"]]}
    assert coords(model, frame.to_numpy(), model_kwargs={"city": city.cat.codes, "y": Y}) == {}
    with pytest.raises(ValueError, match="coords: the model has no argument 'town'"):
        coords(model, frame, model_kwargs={"town": city})


@pytest.mark.parametrize("value", [3, 2.5, True, "word", None, (1, 2), [torch.ones(2), torch.ones(3)], {"a": 1}, ["u"]])
def test_what_is_no_array_stays_as_it_is(value: Any) -> None:
    assert as_data("", value) is value


REFUSED = [
    (pd.Series(["u", "v"]), "and numbers are needed: give categories, as .astype('category') does"),
    (pd.Series([1, None], dtype="Int64"), "argument 1 of the data has a missing value in row 1"),
    (pd.Series(["a", None], dtype="category"), "argument 1 of the data has a missing category in row 1"),
    (pd.DataFrame({"a": [1.0], "city": ["Ulm"]}), "argument 1 of the data, column 'city', holds"),
    (pd.DataFrame({"a": pd.Categorical(["u"])}), "has a column 'a' of categories"),
    (pd.DataFrame(), "is a frame without columns"),
    (np.array(["u"]), "holds text, and numbers are needed: give whole numbers, such as those of"),
    (np.array([{}]), "holds objects, such as {}, and numbers are needed"),
    (np.array(["2020-01-01"], dtype="M8"), "holds dates"),
    (np.array([1j]), "holds complex numbers"),
    ([1j], "holds complex numbers"),
    ([[1.0], [1.0, 2.0]], "is a ragged list, with rows of different lengths"),
    (np.array([2**63], dtype=np.uint64), "has whole numbers beyond the range of int64"),
]


@pytest.mark.parametrize(("value", "sentence"), REFUSED)
def test_what_cannot_be_meant_is_refused_in_a_sentence(value: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"^dadvi: ") as caught:
        dadvi(normal, value, progress=False)
    assert sentence in str(caught.value)
    with pytest.raises(ValueError, match=r"^nuts: argument 'y'"):
        nuts(by_name, model_kwargs={"y": value}, progress=False)


def test_a_name_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dadvi: the model has no argument 'yy': did you mean y\? it has y, scale"):
        dadvi(by_name, model_kwargs={"yy": Y})


def test_numbers_in_the_default_dtype_in_a_model_round_the_data() -> None:
    """A matrix made outside the model, in float32, and data in float64."""
    fixed = torch.ones(25, 2)

    def model(y: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("rows", len(y)):
            pyro.sample(
                "y", dist.Normal(fixed @ w.to(fixed.dtype), torch.ones(25)), obs=torch.mv(fixed.mT, y)[:1].expand(25)
            )

    found = dadvi(model, Y, progress=False)
    assert "data rounded to float32, which numbers in the model are in" in found.info.message


def test_predictions_and_scores_take_arguments_by_name() -> None:
    torch.manual_seed(0)
    x = torch.randn(20, dtype=torch.float64)
    y = 2 * x + torch.randn(20, dtype=torch.float64)

    def model(x: Tensor, y: Tensor | None = None, *, scale: float = 1.0) -> None:
        w = pyro.sample("w", dist.Normal(0.0, 10.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("y", dist.Normal(w * x, scale), obs=y)

    named = {"x": x.numpy(), "y": y.numpy(), "scale": 2.0}
    fitted = dadvi(model, model_kwargs=named, progress=False)
    new = posterior_predictive(model, fitted, model_kwargs={"x": x[:3], "scale": 2.0}, seed=1)["y"]
    assert new.shape == (4000, 3)
    assert torch.allclose(new.std(0).double(), torch.tensor(2.0).double(), rtol=0.15)  # the posterior's adds 2 %
    rows = log_likelihood(model, fitted, model_kwargs=named)["y"]
    expected = torch.distributions.Normal(fitted.draws["w"][..., None].double() * x, 2.0).log_prob(y)
    assert torch.allclose(rows, expected, atol=1e-5)
    assert loo(model, fitted, model_kwargs=named).elpd < float((expected.logsumexp((0, 1)) - math.log(4000)).sum())
