"""What methods say to models and options that they cannot take: one sentence, with no tensor and no internals."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from guidebook import datasets
from guidebook.guides import mean_field
from guidebook.inference import evidence, hmc, metropolis, nuts, svi
from guidebook.inference.traces.prepare import prepare
from guidebook.models import gmm

T = torch.tensor
X = T([1.3, 0.2, 2.1, 0.9, 1.6, -0.4])
INTERNALS = r"\btensor\(|Trace Shapes|Tensor of shape|Messenger|AutoNormal|poutine|_Subsample"


def normal(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def noisy(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(w + torch.randn(()), 1.0), obs=x[0])


DROPOUT = torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))


def dropping(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with torch.no_grad():
        shift = DROPOUT(torch.ones(1))
    pyro.sample("x", dist.Normal(w + shift, 1.0).to_event(1), obs=x[:1])


def random_scale(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, torch.rand(()) + 1))
    pyro.sample("x", dist.Normal(w, 1.0), obs=x[0])


def below_discrete(x: Tensor) -> None:
    z = pyro.sample("z", dist.Bernoulli(0.5))
    mu = pyro.sample("mu", dist.Normal(z, 1.0))
    pyro.sample("x", dist.Normal(mu, 1.0), obs=x[0])


def below_discrete_in_a_plate(x: Tensor) -> None:
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Categorical(T([0.2, 0.8])))
        mu = pyro.sample("mu", dist.Normal(T([-1.0, 1.0])[z], 1.0))
        pyro.sample("x", dist.Normal(mu, 1.0), obs=x)


def below_two_discrete(x: Tensor) -> None:
    a = pyro.sample("a", dist.Bernoulli(0.5))
    b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    mu = pyro.sample("mu", dist.Normal(0.0, 1.0 + b))
    pyro.sample("x", dist.Normal(mu, 1.0), obs=x[0])


def not_broadcasting(x: Tensor) -> None:
    with pyro.plate("components", 2):
        mu = pyro.sample("mu", dist.Normal(0.0, 1.0))
    z = pyro.sample("z", dist.Categorical(torch.ones(2)))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(mu[z.unsqueeze(-1)], 1.0), obs=x)


def counts_without_end(x: Tensor) -> None:
    z = pyro.sample("z", dist.Poisson(3.0))
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(w + z, 1.0), obs=x[0])


def only_discrete(x: Tensor) -> None:
    z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("x", dist.Normal(z, 1.0), obs=x[0])


def only_data(x: Tensor) -> None:
    pyro.sample("x", dist.Normal(0.0, 1.0).expand([len(x)]).to_event(1), obs=x)


def nothing(x: Tensor) -> None:
    pass


def never_finite(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(torch.log(w - 1e6), 1.0), obs=x[0])


def negative_scale(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("x", dist.Normal(w, T(-1.0)), obs=x[0])


def outside_support(x: Tensor) -> None:
    w = pyro.sample("w", dist.Gamma(1.0, 1.0))
    pyro.sample("x", dist.Poisson(w).expand([len(x)]).to_event(1), obs=x)


def shapes_that_differ(x: Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0).expand([4]).to_event(1))
    pyro.sample("x", dist.Normal(x @ w, 1.0), obs=x[0])


def twice(x: Tensor) -> None:
    pyro.sample("w", dist.Normal(0.0, 1.0))
    pyro.sample("w", dist.Normal(0.0, 1.0))


def nan_under_a_mask(x: torch.Tensor) -> None:
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    seen = torch.arange(len(x)) > 0
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(w, 1.0), obs=torch.where(seen, x, x * torch.nan), obs_mask=seen)


SENTENCES = {
    nan_under_a_mask: r"a value of Normal is not a finite number \(what a mask hides must be filled",
    noisy: "the density of site 'x' changes from call to call",
    dropping: r"the density of site 'x' changes from call to call.*model\.eval\(\)",
    random_scale: "the density of site 'w' changes from call to call",
    below_discrete: "the prior of site 'mu' depends on a discrete site",
    below_discrete_in_a_plate: "the prior of site 'mu' depends on a discrete site",
    below_two_discrete: "the prior of site 'mu' depends on a discrete site",
    not_broadcasting: "the discrete sites z cannot be summed out: Invalid tensor shape, at site 'x'",
    counts_without_end: r"site 'z' \(Poisson\) is discrete with values without end",
    only_discrete: "only discrete latent sites",
    only_data: "no latent site",
    nothing: "no latent site",
    never_finite: r"no start was found .* site 'x' is not \(parameter loc of Normal is not a finite number\)",
    negative_scale: r"no start was found .* site 'x' is not \(parameter scale of Normal is not above 0",
    outside_support: "a value of Poisson is not an integer at least 0, at site .x.",
    shapes_that_differ: r"the model cannot be run: .* \(test_prepare.py, line \d+: pyro.sample",
    twice: "the model cannot be run: .*'w'",
}


def sentence(call: Callable[[], Any]) -> str:
    """Return the one sentence of the ValueError that a call raises, which has no internals."""
    with pytest.raises(ValueError, match=": ") as caught:
        call()
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 450
    assert not re.search(INTERNALS, said), said
    return said


@pytest.mark.parametrize("model", SENTENCES, ids=lambda model: model.__name__)
def test_models_that_samplers_cannot_take(model: Callable) -> None:
    for name, method in (("nuts", nuts), ("hmc", hmc), ("metropolis", metropolis)):
        said = sentence(partial(method, model, X, progress=False))
        assert said.startswith(f"{name}: ")
        assert re.search(SENTENCES[model], said), said


@pytest.mark.parametrize("model", [counts_without_end, below_discrete, never_finite, shapes_that_differ, twice])
def test_models_that_guides_cannot_be_fitted_to(model: Callable) -> None:
    assert sentence(lambda: svi(model, mean_field, X, num_steps=10, progress=False)).startswith("svi: ")


def test_models_without_anything_to_fit() -> None:
    for model in (only_data, only_discrete, nothing):
        assert "no parameters to fit" in sentence(lambda m=model: svi(m, mean_field, X, num_steps=10, progress=False))


def test_a_random_density_may_be_fitted_by_svi() -> None:
    """Its noise is one more latent variable, drawn from its prior: the ELBO is a bound all the same."""
    fit = svi(noisy, mean_field, X, num_steps=200, progress=False)
    assert fit.info.elbo < float(dist.Normal(0.0, 3**0.5).log_prob(X[0]))


class Frame:
    """Stands for a data frame."""

    shape = (6, 1)


OPTIONS: list[tuple[Callable[[], Any], str]] = [
    (lambda: svi(normal, X), r"got Tensor: write svi\(model, guide, \*data\)"),
    (lambda: svi(normal, lambda model: mean_field(model), X), "returns a guide, so it is a guide family"),
    (lambda: svi(normal, mean_field, X, loss=Trace_ELBO), r"write loss=Trace_ELBO\(\)"),
    (lambda: svi(normal, mean_field, X, loss=3), "got int"),
    (lambda: svi(normal, mean_field, X, optim=pyro.optim.Adam({"lr": 0.01})), "optim=torch.optim.Adam, and lr"),
    (lambda: svi(normal, mean_field, X, optim="adam"), "got str"),
    (lambda: svi(normal, mean_field, Frame(), batch_size=3), "the first argument of the model is Frame"),
    (lambda: svi(normal, mean_field, {"x": X}, batch_size=3), "the first argument of the model is dict"),
    (lambda: svi(normal, mean_field, batch_size=3), "the first argument of the model is none"),
    (lambda: svi(only_discrete, mean_field, X, loss="trace"), 'leave loss out, or take loss="enum"'),
    (lambda: nuts("normal", X), "model must be a function or a PyroModule, got str"),
    (lambda: nuts(normal), r"missing 1 required positional argument: 'x'"),
    (lambda: nuts(normal, X, X), r"takes 1 positional argument but 2 were given"),
    (lambda: nuts(normal, X.numpy().astype(str)), "argument 1 of the data holds text, and numbers are needed"),
    (lambda: svi(normal, mean_field, {"x": X}), "the model cannot be run"),
    (lambda: evidence(noisy, X, method="naive"), "changes from call to call"),
]


@pytest.mark.parametrize(("call", "words"), OPTIONS)
def test_what_to_write_instead(call: Callable[[], Any], words: str) -> None:
    assert re.search(words, sentence(call))


@pytest.mark.parametrize("method", [nuts, hmc, metropolis, partial(svi, guide=mean_field), evidence])
def test_data_by_keyword(method: Callable) -> None:
    with pytest.raises(
        TypeError, match=r"there is no option 'x': data go by position.*functools.partial\(model, x=…\)"
    ):
        method(model=normal, x=X)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there() -> None:
    for call in (nuts, hmc, metropolis, lambda *data, **options: svi(data[0], mean_field, *data[1:], **options)):
        assert "device 'cuda' is not available" in sentence(partial(call, normal, X, device="cuda", progress=False))


def test_nothing_global_is_left_changed() -> None:
    pyro.get_param_store().setdefault("mine", T(1.0))
    before = torch.random.get_rng_state()
    for model in (noisy, never_finite, twice):
        sentence(partial(nuts, model, X.double(), progress=False))
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert list(pyro.get_param_store()) == ["mine"]
    pyro.clear_param_store()


def test_what_processes_are_sent_does_not_hold_the_models_own_functions() -> None:
    prepared = prepare("nuts", partial(gmm.model, num_components=2), (datasets.load("iris").x,))
    sent = cloudpickle.loads(cloudpickle.dumps(prepared))
    values = {name: prepared.trace.nodes[name]["value"] for name in prepared.log_joint().latent}
    assert torch.equal(sent.log_joint()(values), prepared.log_joint()(values))
