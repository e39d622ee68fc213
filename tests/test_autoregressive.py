"""Autoregressive networks against sums over all images, tables of conditionals, and what masks leave visible."""

from functools import partial
from inspect import unwrap
from itertools import product

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from guidebook import datasets, guides
from guidebook.catalog import ROWS
from guidebook.guides.autoregressive import maximum_likelihood
from guidebook.inference import Posterior, compare, svi
from guidebook.inference.traces.guides import no_guide
from guidebook.models import autoregressive as ar
from guidebook.plots.models.autoregressive import sections
from guidebook.workflow.fit import load_task

Params = dict[str, Tensor]
KINDS = [
    {"network": "made", "hidden": ()},
    {"network": "made", "hidden": 5},
    {"network": "made", "hidden": (12, 7, 9)},
    {"network": "made", "hidden": (12, 7), "order": "random"},
    {"network": "made", "hidden": (12,), "order": "columns"},
    {"network": "pixelcnn", "hidden": (4,)},
    {"network": "pixelcnn", "hidden": (3, 5, 4)},
]
fit = partial(svi, progress=False, num_steps=250, lr=0.03)


def network(columns: int, seed: int = 0, **options) -> Params:
    """A network with large random weights and biases."""
    generator = torch.Generator().manual_seed(seed)
    like = torch.zeros(1, columns, dtype=torch.float64)
    start = ar.starts(like, options["network"], options["hidden"], options.get("order", "raster"), columns)
    params = {name: make() for name, make in start.items()}
    for name, value in params.items():
        if name != "network.order":
            value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
    return params


def all_images(columns: int) -> Tensor:
    return torch.tensor(list(product((0.0, 1.0), repeat=columns)), dtype=torch.float64)


def order_of(params: Params) -> list[int]:
    """Pixels, the first of the order first."""
    columns = len(params["network.logits.bias"])
    return params.get("network.order", torch.arange(columns)).argsort().tolist()


@pytest.mark.parametrize("columns", [4, 9])
@pytest.mark.parametrize("options", KINDS)
def test_the_probabilities_of_all_images_add_up_to_one(options: dict, columns: int) -> None:
    params = network(columns, **options)
    total = ar.log_likelihood(params, all_images(columns)).exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("options", KINDS)
def test_the_conditionals_are_those_of_the_joint_table(options: dict) -> None:
    """p(x_j = 1 | earlier pixels) from the table of all 512 probabilities by summation, in the network's order."""
    params, images = network(9, **options), all_images(9)
    table = ar.log_likelihood(params, images).exp()
    for place, pixel in enumerate(order_of(params)):
        before = order_of(params)[:place]
        given = images[37, before]
        agree = (images[:, before] == given).all(1)
        black = table[agree & (images[:, pixel] == 1)].sum() / table[agree].sum()
        torch.testing.assert_close(ar.conditionals(params, images[37:38])[0, pixel], black, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", KINDS)
def test_a_pixel_depends_on_earlier_pixels_alone(options: dict) -> None:
    params = network(9, **options)
    x = torch.rand(9, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda x: ar.logits(params, x))(x)
    order = order_of(params)
    assert jacobian[order][:, order].triu().abs().max() == 0
    if options["network"] == "made":  # and on all of those
        rows, columns = torch.tril_indices(9, 9, -1)
        assert (jacobian[order][:, order][rows, columns] != 0).all()


def test_a_convolution_has_a_blind_spot() -> None:
    """Stacked 3 × 3 masks never see what lies far to the right in the rows just above (van den Oord et al. 2016)."""
    params = network(49, network="pixelcnn", hidden=(4, 4, 4, 4))
    x = torch.rand(49, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    of_middle = torch.func.grad(lambda x: ar.logits(params, x)[24])(x).reshape(7, 7)
    assert (of_middle[:4, :3] != 0).sum() >= 9
    assert of_middle[3, 3:].abs().max() == 0
    assert of_middle[2, 6] == 0  # although it comes first: up and to the right by more than a step per row


def test_draws_have_the_exact_probabilities() -> None:
    """Frequencies of the 16 images of 2 × 2 pixels in 20,000 draws: 4.5 standard errors allow for 32 comparisons."""
    for options in (KINDS[3], KINDS[6]):
        params, images = network(4, seed=2, **options), all_images(4)
        exact = ar.log_likelihood(params, images).exp()
        drawn = ar.generate(params, 20_000, seed=1)
        found = (drawn[:, None] == images).all(-1).double().mean(0)
        assert ((found - exact).abs() <= 4.5 * (exact * (1 - exact) / 20_000).sqrt() + 1e-12).all()
        assert torch.equal(drawn, ar.generate(params, 20_000, seed=1))
        assert not torch.equal(drawn, ar.generate(params, 20_000, seed=2))
        expected = (exact[:, None] * images).sum(0)
        assert ((ar.identify(params)["x_mean"] - expected).abs() < 4.5 * 0.5 / 256**0.5).all()


@pytest.mark.parametrize("options", KINDS)
def test_draws_are_those_of_the_whole_network_at_every_pixel(options: dict) -> None:
    """Convolutions are computed where a pixel is drawn and kept; images are larger than what a kernel sees."""
    params = network(81, seed=3, **options)
    x, generator = torch.zeros(7, 81, dtype=torch.float64), torch.Generator().manual_seed(5)
    for pixel in order_of(params):
        x[:, pixel] = torch.bernoulli(ar.conditionals(params, x)[:, pixel], generator=generator)
    assert torch.equal(ar.generate(params, 7, seed=5), x)
    assert 0.1 < x.mean() < 0.9


@pytest.mark.parametrize("options", KINDS)
def test_the_model_has_that_density_and_draws_such_rows(options: dict) -> None:
    params, x = network(9, **options), all_images(9)[::7]
    with pyro.get_param_store().scope():
        for name, value in params.items():
            pyro.get_param_store()[name] = value.clone()
        trace = poutine.trace(ar.model).get_trace(x, **options)
        prior = poutine.trace(ar.model).get_trace(x, **options, prior_scale=0.7).log_prob_sum() - trace.log_prob_sum()
        drawn = ar.model(num_rows=4000, num_features=9, **options)
    torch.testing.assert_close(trace.log_prob_sum(), ar.log_likelihood(params, x).sum())
    weights = torch.cat([value.flatten() for name, value in params.items() if name.endswith(".weight")])
    torch.testing.assert_close(prior, torch.distributions.Normal(0.0, 0.7).log_prob(weights).sum())
    exact = ar.log_likelihood(params, all_images(9)).exp() @ all_images(9)
    assert ((drawn.mean(0) - exact).abs() < 4.5 * 0.5 / 4000**0.5).all()


def test_without_hidden_layers_it_is_a_logistic_regression_per_pixel() -> None:
    """Fitted to the maximum, its likelihood is that of scikit-learn's regressions of each pixel on those before it."""
    x, _ = ar.simulate(400, num_features=5, seed=4)
    posterior = svi(partial(ar.model, hidden=()), guides.map_point, x, progress=False)
    best = 0.0
    for pixel in range(5):
        before, y = x[:, :pixel].numpy(), x[:, pixel].numpy()
        if pixel == 0:
            best += float(ar.independent(x[:, :1]).sum())
            continue
        found = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(before, y).predict_log_proba(before)
        best += found[np.arange(len(y)), y.astype(int)].sum()
    assert float(ar.log_likelihood(dict(posterior.params), x).sum()) == pytest.approx(best, abs=1e-3)


@pytest.mark.filterwarnings("ignore:svi")
def test_a_prior_pulls_weights_and_the_likelihood_guide_takes_it_back() -> None:
    x, truth = ar.simulate(600, num_features=9, hidden=16, seed=1)
    model = partial(ar.model, hidden=16, prior_scale=0.1)
    by_map = fit(model, guides.map_point, x, batch_size=300)
    guide = partial(maximum_likelihood, hidden=16, prior_scale=0.1)
    by_likelihood = fit(model, guide, x, batch_size=300)
    free = fit(partial(ar.model, hidden=16), guides.map_point, x, batch_size=300)
    fits = {"map": by_map, "ml": free, "guide": by_likelihood}
    reached = {name: float(ar.log_likelihood(dict(posterior.params), x).mean()) for name, posterior in fits.items()}
    assert float(ar.independent(x).mean()) < reached["map"] < reached["ml"] - 0.1
    assert reached["guide"] == pytest.approx(reached["ml"], abs=0.03)  # from other starts
    with pyro.get_param_store().scope():
        for name, value in by_map.params.items():
            pyro.get_param_store()[name] = value.clone()
        losses = [Trace_ELBO().loss(model, each, x) for each in (guide, no_guide)]
    assert losses[0] == pytest.approx(-600 * reached["map"], rel=1e-10)
    assert losses[1] == pytest.approx(losses[0] - float(ar.log_prior(dict(by_map.params), 0.1)), rel=1e-10)
    size = {
        name: sum(float(v.square().sum()) for n, v in p.params.items() if n.endswith(".weight"))
        for name, p in (("map", by_map), ("ml", free))
    }
    assert size["map"] < 0.5 * size["ml"]
    exact = ar.log_likelihood(truth, x).mean()
    assert abs(reached["ml"] - float(exact)) < 0.5  # nats per row, of about 4


@pytest.mark.filterwarnings("ignore:svi")
@pytest.mark.parametrize("options", [{"network": "made"}, {"network": "pixelcnn", "hidden": (6, 6)}])
def test_held_out_digits_are_likelier_than_under_independent_pixels(options: dict, tmp_path) -> None:
    x = datasets.load("digits").x.gt(8).double()
    train, test = x[::2][:500], x[1::2][:300]
    model = partial(ar.model, prior_scale=0.5, **options)
    posterior = fit(model, guides.map_point, train, num_steps=150, batch_size=125)
    params = dict(posterior.params)
    frequency = (train.sum(0) + 0.5) / (len(train) + 1)
    alone = torch.distributions.Bernoulli(frequency).log_prob(test).sum(1)
    gain = ar.log_likelihood(params, test) - alone
    assert float(gain.mean()) > 2 + 4 * float(gain.std()) / len(test) ** 0.5
    posterior.save(tmp_path / "kept")
    again = Posterior.load(tmp_path / "kept")
    assert torch.equal(ar.log_likelihood(dict(again.params), test), ar.log_likelihood(params, test))


def test_a_report_shows_what_each_network_draws_if_columns_make_a_square() -> None:
    x, _ = ar.simulate(40, num_features=9)
    quantities = {name: value[None, None] for name, value in ar.identify(network(9, **KINDS[1])).items()}
    fits = [svi(ar.model, guides.map_point, x, num_steps=3, batch_size=20, progress=False) for _ in range(2)]
    fits = [Posterior(draws=quantities, params=fit.params, info=fit.info) for fit in fits]
    comparison = compare(*fits, names=["a", "b"])
    (section,) = sections(comparison, x, None)
    assert len(section.figures) == 3
    values = {name: float(value.replace("−", "-")) for name, value in section.tables[0].rows}
    assert values["a"] == pytest.approx(float(ar.log_likelihood(dict(fits[0].params), x).mean()), abs=0.006)
    assert values["independent pixels"] == pytest.approx(float(ar.independent(x).mean()), abs=0.006)
    assert sections(comparison, x[:, :8], None) == []


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: unwrap(ar.model)(x, network="mlp"), "unknown network 'mlp': there is made and pixelcnn"),
        (lambda x: unwrap(ar.model)(x, order="spiral"), "unknown order 'spiral': there is raster, columns, random"),
        (lambda x: ar.model(x, order=torch.zeros(9)), "order must give each of the 9 pixels its place"),
        (lambda x: ar.model(x, network="pixelcnn", order="random"), "its order is raster"),
        (lambda x: ar.model(x[:, :8], network="pixelcnn"), "pixelcnn needs square images; 8 columns are not one"),
        (lambda x: ar.model(x[:, :8], order="columns"), "order columns needs square images"),
        (lambda x: ar.model(x, hidden=0), "hidden must name layers of one unit or more, got 0"),
        (lambda x: ar.model(x, network="pixelcnn", hidden=()), "hidden must name at least one layer"),
        (lambda x: ar.model(x, prior_scale=0.0), "prior_scale must be positive, got 0.0"),
        (lambda x: ar.model(x / 2), "row 0, column 8 is 0.5: pixels must be 0 or 1"),
        (lambda x: ar.model(), "give num_rows= and num_features="),
        (lambda x: ar.log_likelihood(network(4, **KINDS[0]), x), "the network has 4 pixels, and the rows have 9"),
        (lambda x: ar.log_likelihood(network(9, **KINDS[0]), x / 2), "row 0, column 8 is 0.5"),
        (lambda x: ar.generate({"z": x}, 3), "the parameters hold no network"),
        (lambda x: ar.simulate(0), "num_rows and num_features must be positive, got 0 and 16"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, words: str) -> None:
    with pyro.get_param_store().scope(), pytest.raises(ValueError, match="autoregressive: ") as error:
        call(all_images(9)[1:3])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["network=pixelcnn", "order=random"], "pixelcnn goes through the pixels row by row, so its order is raster"),
        (["standardize=true"], "it takes intensities from 0 up"),
    ],
)
def test_options_that_do_not_go_together_are_refused_with_the_data(settings: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=f"autoregressive: .*{words}"):
        load_task("autoregressive", settings=settings)


def test_its_cells_say_why_they_are_empty() -> None:
    row = ROWS["autoregressive"]
    assert set(row.guides) == {"map_point", "maximum_likelihood"}
    assert "no latent variable" in row.unavailable["em"].reason
    assert "no site is left to draw" in row.unavailable["nuts"].reason
