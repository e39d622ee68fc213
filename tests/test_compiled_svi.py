"""Compiled steps: the same loss and gradient as Pyro's, for every guide and loss, and the same answers."""

import sys
import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import ELBO
from torch import Tensor
from torch.fx import Interpreter
from zoo import linear

from guidebook import datasets, guides
from guidebook.catalog import FAMILIES, ROWS
from guidebook.inference import kl_warm_up, svi
from guidebook.inference.engines.compiled import compile_step, cpp_loop, cuda_loop, functionalise
from guidebook.inference.engines.compiled.trace_step import trace_step
from guidebook.inference.engines.graph import CannotCompile
from guidebook.inference.optim.losses import named_loss
from guidebook.inference.optim.minibatch import RowIndex, gather
from guidebook.inference.optim.rules import RULES, Optimiser, make_optimiser, rule_of
from guidebook.inference.traces.guides import is_family
from guidebook.inference.traces.init import InitMessenger
from guidebook.inference.traces.params import unconstrained_params
from guidebook.models import gmm, lda, ppca, vae
from guidebook.workflow import resolve
from guidebook.workflow.fit import load_task

DATA = linear.data()
EXACT = linear.posterior(*DATA)
WINE = datasets.load("wine", standardize=True).x
IRIS = datasets.load("iris").x
PURCHASES = datasets.load("purchases").x[:60]
DOCUMENTS = datasets.load("three_documents").x
PIXELS = (torch.rand(12, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < 0.4).double()
fit = partial(svi, linear.model, progress=False)


class Listening(Interpreter):
    """Keeps the standard noise that a graph draws."""

    def run_node(self, n: torch.fx.Node):
        if not hasattr(self, "heard"):
            self.heard = {"normal": [], "uniform": []}
        value = super().run_node(n)
        for kind, targets in (("normal", functionalise.NORMAL), ("uniform", functionalise.UNIFORM)):
            if n.target in targets:
                self.heard[kind].append(value.flatten().clone())
        return value

    def noise(self, like: Tensor) -> list[Tensor]:
        return [torch.cat(parts) if parts else like.new_zeros(0) for parts in self.heard.values()]


def recorded(loss: ELBO, model, guide, *data: Tensor):
    """What the fit records (which `trace_step` checks against Pyro), its inputs, and the pure step."""
    fitted = guide(InitMessenger()(model)) if getattr(guide, "is_guide_family", False) else guide
    pyro.set_rng_seed(0)
    loss.loss_and_grads(model, fitted, *data)
    leaves = unconstrained_params(model, fitted)
    for leaf in leaves:
        leaf.grad = None
    graph = trace_step(loss, model, fitted, leaves, [data] * 2, [])
    inputs = [leaf.detach() for leaf in leaves]
    return graph, inputs, functionalise.functionalise(trace_step(loss, model, fitted, leaves, [data], []), inputs)


def _grouped(group: Tensor, y: Tensor) -> None:
    with pyro.plate("groups", int(group.max()) + 1):
        level = pyro.sample("level", dist.Normal(0.0, 1.0))
    if group.unique().tolist() and not bool(y.isnan().any()):
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(level[group], 1.0), obs=y)


def _branching(group: Tensor, y: Tensor) -> None:
    level = pyro.sample("base", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(level + int(level.max() + group.max()), 1.0), obs=y[0])


def test_what_a_model_asks_of_its_data_is_recorded_and_of_its_draws_is_not() -> None:
    data = torch.tensor([0, 1, 2, 1]), torch.tensor([0.0, 1.0, 2.0, 1.0])
    graph, _, _ = recorded(named_loss("trace"), _grouped, guides.mean_field, *data)
    assert not any("unique" in str(node.target) for node in graph.graph.nodes)
    with pytest.raises(CannotCompile, match="takes a number out of a drawn tensor"):
        recorded(named_loss("trace"), _branching, guides.mean_field, *data)


def assert_pure_step_is_the_same(loss: ELBO, model, guide, *data: Tensor) -> None:
    """At the same noise the graph without Pyro, data and noise gives Pyro's loss and gradients."""
    graph, inputs, step = recorded(loss, model, guide, *data)
    original = Listening(graph)
    with torch.no_grad():
        with torch.random.fork_rng():
            expected = original.run(*inputs, enable_io_processing=False)
        ours = Interpreter(step.graph).run(
            *inputs, *original.noise(inputs[0]), *step.constants, enable_io_processing=False
        )
    assert len(expected) == 1 + len(inputs)
    assert any(bool(grad.any()) for grad in expected[1:])
    for a, b in zip(expected, ours, strict=True):
        torch.testing.assert_close(a.reshape(b.shape), b, rtol=1e-9, atol=1e-9 * (1 + float(b.abs().max())))


@pytest.mark.parametrize(
    "family", [guides.mean_field, guides.low_rank, guides.full_rank, guides.flow, guides.laplace, guides.map_point]
)
def test_every_guide_family_gives_its_eager_loss(family) -> None:
    assert_pure_step_is_the_same(named_loss("trace"), linear.model, family, *DATA)


@pytest.mark.parametrize("name", ["mean_field", "graph", "enum", "renyi", "iwae"])
def test_every_loss_is_recorded(name: str) -> None:
    loss = named_loss(name, 3 if name in ("renyi", "iwae") else 1)
    warnings.filterwarnings("ignore", "TraceEnum_ELBO found no sample sites configured")
    assert_pure_step_is_the_same(loss, linear.model, guides.mean_field, *DATA)


CELLS = [
    (name, guide)
    for name, row in ROWS.items()
    for guide in dict.fromkeys([row.default_guide, *(guide for guide in row.guides if guide not in FAMILIES)])
]


@pytest.mark.parametrize(("name", "guide"), CELLS)
def test_the_collections_models_are_recorded(name: str, guide: str) -> None:
    task = load_task(name, used=("nuts", guide))
    cell = task.row.guides[guide]
    model = task.latent_model if cell.latent else task.model
    guide_of = resolve.bind(cell.function, task.options, task.row.options)
    if is_family(guide_of):
        guide_of = guide_of(InitMessenger()(model))
    assert_pure_step_is_the_same(named_loss(cell.loss), model, guide_of, *(value[:100] for value in task.args))


def test_noise_and_data_are_inputs() -> None:
    """Nothing that a compiled artefact would hold: the weights' three draws, and x and y as constants outside."""
    _, _, step = recorded(named_loss("trace"), linear.model, guides.mean_field, *DATA)
    assert step.noise == (3, 0)
    assert {tuple(constant.shape) for constant in step.constants} <= {(60, 3), (3, 60), (60,), (60, 1)}
    assert not [node for node in step.graph.graph.nodes if node.op == "get_attr"]


@pytest.mark.parametrize("dim", [0, -1])
def test_short_scans_are_written_out(dim: int) -> None:
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(functionalise._cumsum(x, dim), x.cumsum(dim))
    torch.testing.assert_close(functionalise.cumprod(x, dim), x.cumprod(dim))
    counts = (x > 0).int()
    torch.testing.assert_close(functionalise._cumsum(counts, dim), counts.cumsum(dim))
    assert functionalise._cumsum(torch.zeros(9), 0) is NotImplemented


WITH_ARGUMENTS = [
    partial(torch.optim.Adam, betas=(0.5, 0.9), eps=1e-3),
    partial(torch.optim.RMSprop, alpha=0.7, eps=1e-3),
    partial(torch.optim.SGD, momentum=0.8),
    partial(torch.optim.SGD, momentum=0.8, nesterov=True),
]


@pytest.mark.parametrize("optim", [*RULES, *WITH_ARGUMENTS])
def test_rules_are_torchs_optimisers(optim) -> None:
    ours = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    theirs = ours.clone().requires_grad_()
    optimiser, rule = optim([theirs], lr=0.05), rule_of(optim)
    memory = [torch.zeros_like(ours) for _ in range(rule.states)]
    for t in range(1, 30):
        grad = torch.cos(t * ours) * ours
        theirs.grad = torch.cos(t * theirs.detach()) * theirs.detach()
        optimiser.step()
        ours, memory = rule.update(ours, grad, memory, torch.tensor(rule.numbers(t, 0.05), dtype=torch.float64))
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optim", [*RULES, torch.optim.Adagrad])
def test_eager_steps_are_those_of_torchs_optimisers(optim) -> None:
    """Also of a leaf that has a gradient in every second step only."""
    ours, theirs = (
        [torch.tensor([1.0, -2.0], requires_grad=True), torch.ones(3, requires_grad=True)] for _ in range(2)
    )
    one, other = make_optimiser(optim, ours, 0.1), optim(theirs, lr=0.1)
    assert isinstance(one, Optimiser) == (optim in RULES)
    for t in range(20):
        for group in (*one.param_groups, *other.param_groups):
            group["lr"] = 0.1 * 0.9**t
        for optimiser, leaves in ((one, ours), (other, theirs)):
            optimiser.zero_grad()
            sum(leaf.square().cos().sum() for leaf in leaves[: 1 + t % 2]).backward()
            optimiser.step()
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b)


def test_a_compiled_fit_finds_the_posterior() -> None:
    posterior = fit(guides.full_rank, *DATA, num_steps=4000, num_draws=20_000, engine="compiled")
    assert posterior.info.engine == "compiled"
    assert posterior.info.losses.shape == (4000,)
    w = posterior.draws["w"][0]
    assert ((w.mean(0) - EXACT.mean) / EXACT.stddev).abs().max() < 0.10
    assert (w.std(0) / EXACT.stddev - 1).abs().max() < 0.06
    evidence = linear.log_evidence(*DATA)
    assert evidence - 0.05 < posterior.info.elbo < evidence + 4 * posterior.info.elbo_se + 1e-6


def by_hand(
    step: functionalise.PureStep, rule, leaves: list[Tensor], batch: list[Tensor], streams: list[Tensor | RowIndex]
):
    """Steps one by one through the pure step and the optimiser's rule: losses and the last state."""
    parameters = torch.cat([leaf.reshape(-1) for leaf in leaves])
    average, memory, losses = parameters, [torch.zeros_like(parameters) for _ in range(rule.states)], []
    for numbers, normal, uniform, *rows in zip(*map(gather, streams), strict=True):
        parts = parameters.split([leaf.numel() for leaf in leaves])
        values = [part.view(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
        inputs = (*values, *rows, normal, uniform, *step.constants)
        loss, *grads = Interpreter(step.graph).run(*inputs, enable_io_processing=False)
        gradient = torch.cat([grad.reshape(-1) for grad in grads])
        parameters, memory = rule.update(parameters, gradient, memory, numbers)
        average = average + numbers[-1] * (parameters - average)
        losses.append(loss.reshape(()))
    return torch.stack(losses), [parameters, average, *memory]


def steps_of(stream: Tensor | RowIndex, part: slice) -> Tensor | RowIndex:
    return stream[part] if isinstance(stream, Tensor) else stream._replace(rows=stream.rows[part])


def by_inductor(*_) -> None:
    """In place of `compile_step._lowered`."""


@pytest.mark.parametrize(
    ("model", "guide", "data", "optim", "batched"),
    [
        (linear.model, guides.full_rank, DATA, torch.optim.Adam, False),
        (linear.model, guides.mean_field, DATA, torch.optim.SGD, True),
        (partial(gmm.model, num_components=3), guides.low_rank, (IRIS,), torch.optim.Adam, False),
        (partial(gmm.model, num_components=3), guides.mean_field, (IRIS.float(),), torch.optim.RMSprop, False),
        (partial(ppca.model, latent_dim=2), guides.flow, (WINE.float(),), torch.optim.Adam, False),
        (
            partial(vae.model, latent_dim=2, hidden=5),
            partial(guides.vae.encoder, latent_dim=2, hidden=5),
            (PIXELS,),
            torch.optim.Adam,
            True,
        ),
    ],
)
def test_a_loop_of_machine_code_takes_the_same_steps(model, guide, data, optim, batched: bool) -> None:
    fitted = guide(InitMessenger()(model)) if getattr(guide, "is_guide_family", False) else guide
    pyro.set_rng_seed(1)
    loss, rows = named_loss("trace"), list(range(len(data))) if batched else []
    loss.loss_and_grads(model, fitted, *data)
    leaves = unconstrained_params(model, fitted)
    for leaf in leaves:
        leaf.grad = None
    values, rule, steps = [leaf.detach().clone() for leaf in leaves], rule_of(optim), 6
    batch = [data[position] for position in rows]
    step = functionalise.functionalise(trace_step(loss, model, fitted, leaves, [data], rows), [*values, *batch])
    like, generator = values[0], torch.Generator().manual_seed(0)
    plan = [(*rule.numbers(t + 1, 1e-3), (0.0, 1.0, 0.5)[t % 3]) for t in range(steps)]
    noise = [torch.rand(steps, size, generator=generator, dtype=like.dtype) for size in step.noise]
    streams = [
        torch.tensor(plan, dtype=like.dtype),
        *noise,
        *(RowIndex(rows, torch.stack([torch.arange(len(rows)).roll(t) for t in range(steps)])) for rows in batch),
    ]
    ours = compile_step.compile_step(step, rule, values, batch)
    assert isinstance(ours, cpp_loop.CppLoop)
    with torch.no_grad():
        losses, state = by_hand(step, rule, values, batch, streams)
        found = torch.cat(
            [ours.run([steps_of(stream, part) for stream in streams]) for part in (slice(4), slice(4, 6))]
        )
    tolerance = 1e-9 if like.dtype == torch.float64 else 2e-4
    torch.testing.assert_close(found, losses, rtol=tolerance, atol=tolerance)
    for a, b in zip(ours.state, state, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * (1 + float(b.abs().max())))
    assert not torch.equal(ours.state[0], torch.cat([value.reshape(-1) for value in values]))


def test_what_cannot_be_played_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws of a Dirichlet are torch's; and a fit by calls is the fit by a loop, for the seed decides."""
    kinds = []

    def listening(*arguments):
        kinds.append(type(made := make(*arguments)))
        return made

    make = compile_step._loop
    monkeypatch.setattr(compile_step, "_loop", listening)
    monkeypatch.setattr(compile_step, "_lowered", by_inductor)
    topics = {"num_topics": 2}
    svi(
        partial(lda.model, **topics), partial(guides.lda.mean_field, **topics), DOCUMENTS, num_steps=30,
        engine="compiled", progress=False,
    )  # fmt: skip
    run = partial(fit, guides.mean_field, *DATA, num_steps=318, lr=0.05, engine="compiled")
    played = run()
    with torch.random.fork_rng():
        torch.rand(7)
        again = run()
    monkeypatch.setattr(cpp_loop, "_LOOP", "no C++")
    called = run()
    assert kinds == [compile_step.PythonLoop, cpp_loop.CppLoop, cpp_loop.CppLoop, compile_step.PythonLoop]
    torch.testing.assert_close(played.info.losses, again.info.losses, rtol=0, atol=0)
    torch.testing.assert_close(played.info.losses, called.info.losses)
    assert called.info.losses.shape == (318,)
    assert not torch.equal(run(seed=1).info.losses, called.info.losses)


def test_captured_steps_fetch_their_own_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with a graph that is the step itself, called a few times before it counts as captured."""
    made, run = [], partial(fit, guides.mean_field, *DATA, num_steps=318, lr=0.05, engine="compiled")
    known = run()

    def capture(body, device: torch.device):
        for _ in range(cuda_loop.WARM_UP + 1):
            body()
        return body

    def captured(function, _, *arguments):
        made.append(cuda_loop.CudaGraphLoop(function, *arguments[:3], capture))
        return made[-1]

    monkeypatch.setattr(compile_step, "_loop", captured)
    monkeypatch.setattr(compile_step, "_lowered", by_inductor)
    found = run()
    assert len(made) == 1
    torch.testing.assert_close(found.info.losses, known.info.losses)
    for name, value in known.params.items():
        torch.testing.assert_close(found.params[name], value)


def test_minibatches_stand_for_all_rows() -> None:
    x, y = linear.data(rows=400)
    x = x.mT.contiguous().mT  # rows with gaps
    posterior = svi(
        linear.model, guides.full_rank, x, y, batch_size=100, num_steps=8000, num_draws=4000, engine="compiled",
        progress=False,
    )  # fmt: skip
    exact = linear.posterior(x, y)
    w = posterior.draws["w"][0]
    assert ((w.mean(0) - exact.mean) / exact.stddev).abs().max() < 0.3
    assert (w.std(0) / exact.stddev - 1).abs().max() < 0.3  # without the scale of 4 they would be twice as wide


def branching(x: Tensor) -> None:
    z = pyro.sample("z", dist.Normal(0.0, 1.0))
    if z > 0:
        z = 2 * z
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def test_a_branch_on_a_drawn_value_is_named_and_runs_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"on its value does \(test_compiled_svi\.py, line \d+: if z > 0:\)"):
        svi(branching, guides.mean_field, x, num_steps=10, engine="compiled", progress=False)
    monkeypatch.setattr(sys.modules["guidebook.inference.optim.steps"], "COMPILED_FROM", 10)
    with pytest.warns(UserWarning, match="one by one, since they cannot be compiled: the model takes a number out"):
        posterior = svi(branching, guides.mean_field, x, num_steps=10, progress=False)
    assert posterior.info.engine == "eager"


def test_without_a_compiler_steps_are_eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_step.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"cannot be compiled: there is no C\+\+ compiler"):
        fit(guides.mean_field, *DATA, num_steps=10, engine="compiled")


def test_short_fits_are_eager_and_so_are_losses_of_ones_own_unless_told_otherwise() -> None:
    assert fit(guides.mean_field, *DATA, num_steps=10).info.engine == "eager"

    def own(model, guide, *data):
        return named_loss("trace").differentiable_loss(model, guide, *data)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyro.set_rng_seed(0)
        assert fit(guides.mean_field, *DATA, num_steps=30, loss=own).info.engine == "eager"
    ours = fit(guides.mean_field, *DATA, num_steps=300, loss=own, engine="compiled")
    pyros = fit(guides.mean_field, *DATA, num_steps=300, engine="compiled")
    torch.testing.assert_close(ours.info.losses, pyros.info.losses)
    with pytest.raises(ValueError, match="kl_warm_up changes from step to step: remove engine='compiled'"):
        fit(guides.mean_field, *DATA, loss=kl_warm_up(100), engine="compiled")
    with pytest.raises(ValueError, match="engine must be one of auto, eager, compiled; got 'fast'"):
        fit(guides.mean_field, *DATA, engine="fast")
    with pytest.raises(ValueError, match="Adagrad is none of the optimisers that are compiled, Adam"):
        fit(guides.mean_field, *DATA, num_steps=10, optim=torch.optim.Adagrad, engine="compiled")


def test_a_graph_that_differs_from_the_model_is_refused() -> None:
    """A model that changes from call to call: the second check must see it."""
    calls = iter(range(1000))

    def drifting(x: Tensor) -> None:
        z = pyro.sample("z", dist.Normal(float(next(calls)), 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(CannotCompile, match="the recorded step disagrees with the eager one"):
        recorded(named_loss("trace"), drifting, guides.mean_field, torch.zeros(3, dtype=torch.float64))


def test_a_loss_that_stops_being_finite_is_said() -> None:
    def exploding(x: Tensor) -> None:
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with pyro.plate("rows", len(x)):
            pyro.sample("x", dist.Normal(0.0, scale), obs=x)

    with pytest.raises(FloatingPointError, match=r"svi: the loss is -?(nan|inf) at step \d+"):
        svi(
            exploding, guides.mean_field, torch.zeros(50), num_steps=3000, lr=30.0, engine="compiled", progress=False
        )  # fmt: skip
