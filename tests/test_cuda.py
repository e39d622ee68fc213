"""On a CUDA device: every method runs where the data are, and agrees with the CPU or with the exact posterior."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from test_catalog import KINDS
from torch import Tensor
from zoo import linear

from guidebook import datasets, guides
from guidebook.catalog import METHODS, ROWS
from guidebook.inference import cavi, closed_form, em, gibbs, hmc, nuts, stream, svi
from guidebook.inference.diagnostics import ess
from guidebook.inference.engines.compiled import compile_step
from guidebook.inference.engines.compiled.cuda_loop import CudaGraphLoop
from guidebook.inference.streams.batches import StreamBatches
from guidebook.models import gmm, logistic, ppca, vae
from guidebook.workflow import resolve
from guidebook.workflow.fit import load_task

DEVICE = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

DATA = linear.data()
EXACT = linear.posterior(*DATA)
IRIS = datasets.load("iris").x
WINE = datasets.load("wine", standardize=True).x
CANCER = datasets.load("breast_cancer", standardize=True).x[:, :6]
BENIGN = torch.tensor(load_breast_cancer().target).double()
PIXELS = (torch.rand(40, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < 0.4).double()


def there(*data: Tensor) -> tuple[Tensor, ...]:
    return tuple(value.to(DEVICE) for value in data)


def assert_exact(draws: Tensor, fitted: float = 0.0) -> None:
    """Draws (chain, draw, 3) of the linear model's weights: mean and spread, within Monte Carlo error.

    A fit may miss the mean by a share ``fitted`` of the standard deviation.
    """
    assert draws.device.type == "cpu"
    effective = ess(draws).clamp(max=draws.shape[0] * draws.shape[1])
    sds = EXACT.stddev
    assert ((draws.mean((0, 1)) - EXACT.mean).abs() < sds * (fitted + 4.5 / effective.sqrt())).all()
    assert ((draws.std((0, 1)) / sds - 1).abs() < 0.1 + 3 / effective.sqrt()).all()


# Updates in closed form


UPDATES = [(*kind, method) for kind in KINDS for method in ("em", "cavi") if method in ROWS[kind[0]].steps]


@pytest.mark.parametrize(("name", "settings", "method"), UPDATES)
def test_updates_raise_the_objective_as_on_the_cpu(name: str, settings: list[str], method: str) -> None:
    task = load_task(name, settings=settings, used=(method,))
    if method in task.row.unavailable:
        pytest.skip(task.row.unavailable[method].reason)
    names = [*task.row.options, *METHODS[method].options]
    steps, data = resolve.bind(task.row.steps[method], task.options, names)(), task.args
    torch.manual_seed(0)
    start = steps.init(0, *data)
    if steps.batched:
        start = {name: value.unsqueeze(0) for name, value in start.items()}
    curves = []
    for place in ("cpu", DEVICE):
        x, params, curve = [value.to(place) for value in data], {k: v.to(place) for k, v in start.items()}, []
        with torch.no_grad():
            for _ in range(8):
                expectations = steps.e_step(params, *x)
                curve.append(float(steps.objective(params, expectations)))
                params = steps.m_step(expectations, *x)
        assert all(value.device.type == place for value in params.values())
        curves.append(curve)
    assert curves[1] == pytest.approx(curves[0], rel=1e-8)


def test_fits_end_where_they_do_on_the_cpu() -> None:
    for fit, options in ((em, {}), (cavi, {"num_draws": 10})):
        steps = gmm.em_steps(3) if fit is em else gmm.cavi_steps(3)
        here, far = (fit(steps, x, num_restarts=10, **options) for x in (IRIS, *there(IRIS)))
        assert far.info.objective[-1] == pytest.approx(float(here.info.objective[-1]), abs=1e-4)
        assert all(value.device.type == "cpu" for value in (*far.params.values(), *far.draws.values()))
    here, far = (closed_form(ppca.maximum_likelihood, x) for x in (WINE, *there(WINE)))
    torch.testing.assert_close(far.params["noise_variance"], here.params["noise_variance"])


def test_gibbs_draws_from_the_same_posterior() -> None:
    means = []
    for data in ((CANCER, BENIGN), there(CANCER, BENIGN)):
        draws = gibbs(logistic.gibbs_steps(), *data, num_draws=1500, num_chains=2, progress=False).draws["w"]
        means.append((draws.mean((0, 1)), draws.var((0, 1)) / ess(draws)))
    (one, variance), (two, other) = means
    assert ((one - two).abs() < 5 * (variance + other).sqrt()).all()


# Gradients


@pytest.mark.parametrize("engine", ["eager", "compiled"])
def test_svi_finds_the_exact_posterior(engine: str) -> None:
    found = svi(
        linear.model, guides.full_rank, *DATA, device=DEVICE, engine=engine, num_steps=3000, num_draws=4000,
        progress=False,
    )  # fmt: skip
    assert found.info.engine == engine
    assert_exact(found.draws["w"], fitted=0.1)
    assert found.info.elbo == pytest.approx(linear.log_evidence(*DATA), abs=0.05)


def test_points_and_their_curvature_are_exact() -> None:
    found = svi(linear.model, guides.laplace, *DATA, device=DEVICE, num_draws=4000, progress=False)
    assert found.info.engine == "Newton"
    assert_exact(found.draws["w"], fitted=0.01)


@pytest.mark.parametrize(
    ("model", "guide", "data", "batched"),
    [
        (logistic.model, guides.mean_field, (CANCER, BENIGN), False),
        (logistic.model, guides.mean_field, (CANCER, BENIGN), True),
        (partial(gmm.model, num_components=3), guides.full_rank, (IRIS,), False),
        (ppca.model, guides.low_rank, (WINE,), False),
        (partial(vae.model, latent_dim=2), partial(guides.vae.encoder, latent_dim=2), (PIXELS,), False),
    ],
)
@pytest.mark.filterwarnings("ignore:svi. took all")
def test_compiled_steps_fit_as_on_the_cpu_and_plain_ones_are_one_launch_each(
    model, guide, data: tuple[Tensor, ...], batched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds, make = [], compile_step._loop

    def listening(*arguments):
        kinds.append(type(steps := make(*arguments)))
        return steps

    monkeypatch.setattr(compile_step, "_loop", listening)
    run = partial(
        svi, model, guide, *data, num_steps=1500, engine="compiled", progress=False,
        batch_size=100 if batched else None,
    )  # fmt: skip
    here, far = run(), run(device=DEVICE)
    if model is logistic.model:  # whether a library's factorisations can be captured is for the library to say
        assert kinds[1] is CudaGraphLoop
    ends = [found.info.losses[-300:].double() for found in (here, far)]
    error = math.sqrt(sum(float(end.var()) / 30 for end in ends))  # neighbours are alike
    assert float(ends[0].mean()) == pytest.approx(float(ends[1].mean()), abs=5 * error)


@pytest.mark.parametrize("engine", ["eager", "compiled"])
@pytest.mark.filterwarnings("ignore:svi. took all")
def test_batches_of_a_stream_are_copied_in_time_and_fit_as_on_the_cpu(engine: str) -> None:
    x, y = linear.data(500)
    found, rows = StreamBatches(stream((x, y)), 50, there(x, y)), []
    for _ in range(10):  # an epoch
        batch = next(found)
        assert all(value.device.type == DEVICE for value in batch)
        rows.append(batch[1])
    torch.testing.assert_close(torch.cat(rows).cpu().sort().values, y.sort().values, rtol=0, atol=0)
    exact = linear.posterior(x, y)
    how: dict[str, Any] = {
        "num_steps": 3000 if engine == "compiled" else 600,
        "lr": 0.05,
        "engine": engine,
        "progress": False,
    }
    fit = svi(linear.model, guides.full_rank, stream((x, y)), batch_size=50, device=DEVICE, **how)
    assert ((fit.samples["w"].double().mean(0) - exact.mean) / exact.stddev).abs().max() < 0.4


# Chains


@pytest.mark.parametrize("method", [nuts, hmc])
def test_chains_draw_from_the_exact_posterior(method) -> None:
    engine = {"engine": "pyro"} if method is nuts else {}
    found = method(
        linear.model, *DATA, device=DEVICE, num_draws=800, num_warmup=300, num_chains=1, progress=False, **engine
    )
    assert_exact(found.draws["w"])


def test_chains_of_xla_draw_from_the_exact_posterior() -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("numpyro")
    try:
        jax.local_devices(backend="gpu")
    except RuntimeError:
        pytest.skip("JAX finds no GPU: it takes jax[cuda12]")
    found = nuts(linear.model, *DATA, device=DEVICE, engine="xla", num_draws=1000, num_chains=2, progress=False)
    assert_exact(found.draws["w"])
