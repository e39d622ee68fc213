"""Engines: what happens when torch, JAX or NumPyro change, and that no graph is trusted before it has been checked."""

import math
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from zoo import linear

from guidebook import guides
from guidebook.inference import nuts, svi
from guidebook.inference.engines.compiled import (
    compile_step,
    cpp_loop,
    fit,
    functionalise,
    inductor,
    small_matrices,
)
from guidebook.inference.engines.compiled.trace_step import trace_step
from guidebook.inference.engines.graph import CannotCompile, functional, traced
from guidebook.inference.optim.rules import sgd

F8 = torch.float64
DATA = linear.data()

# Names that move


EAGER_PATHS = """
import sys, warnings

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name == BLOCKED or name.startswith(BLOCKED + "."):
            raise ImportError(f"No module named {name!r}")

sys.meta_path.insert(0, Blocked())
import guidebook.inference
import pyro, torch
import pyro.distributions as dist
from guidebook import guides
from guidebook.inference import em, gibbs, hmc, metropolis, nuts, svi
from guidebook.inference.engines.compiled import compile_step
from guidebook.models import gmm

compile_step._lowered = lambda *_: None  # small steps need nothing of torch's

def model(x):
    loc = pyro.sample("loc", dist.Normal(x.new_zeros(()), 1.0))
    with pyro.plate("rows", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

x = torch.tensor([0.3, 1.1, 0.4, 2.0, 1.2], dtype=torch.float64)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = svi(model, guides.mean_field, x, num_steps=STEPS, lr=0.05, progress=False)
print([str(warning.message) for warning in caught if "svi:" in str(warning.message)])
assert found.info.engine == "eager", found.info.engine
assert abs(float(found.draws["loc"].mean()) - 5 / 6) < 0.1
warnings.simplefilter("ignore")
for method in (partial(nuts, engine="pyro"), hmc, metropolis):
    assert method(model, x, num_draws=60, num_warmup=60, num_chains=1, progress=False).draws["loc"].isfinite().all()
em(gmm.em_steps(2), torch.cat([x, x + 9])[:, None])
gibbs(gmm.gibbs_steps(2), torch.cat([x, x + 9])[:, None], num_draws=5, num_chains=1, progress=False)
print("every eager path works")
"""


@pytest.mark.slow
@pytest.mark.parametrize("blocked", ["torch._inductor", "torch._functorch.compile_utils"])
def test_without_torchs_private_modules_every_method_runs_eagerly(blocked: str) -> None:
    """5,000 steps are enough for "auto" to compile them; here it must say why it does not."""
    script = f"from functools import partial\nBLOCKED, STEPS = {blocked!r}, 5_000\n{EAGER_PATHS}"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=600)
    assert run.returncode == 0, run.stderr
    assert "cannot be compiled" in run.stdout
    assert blocked in run.stdout
    assert "every eager path works" in run.stdout


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch._inductor", "standalone_compile"),
        ("torch._inductor.codecache", "PyCodeCache"),
        ("torch._inductor.codecache.PyCodeCache", "load_by_key_path"),
        ("torch._inductor.async_compile.AsyncCompile", "cpp_pybinding"),
        ("torch._inductor.cpu_vec_isa", "valid_vec_isa_list"),
    ],
)
def test_a_private_name_that_moved_means_eager_steps(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with inductor.trust_cpuid():
        pass  # imports them all
    monkeypatch.delattr(f"{module}.{name}")
    monkeypatch.setattr(compile_step, "_lowered", lambda *_: None)
    monkeypatch.setattr(sys.modules["guidebook.inference.optim.steps"], "COMPILED_FROM", 10)
    with pytest.warns(UserWarning, match="steps are taken one by one, since they cannot be compiled: torch"):
        assert svi(linear.model, guides.mean_field, *DATA, num_steps=10, progress=False).info.engine == "eager"


@pytest.mark.parametrize("error", [ImportError, AttributeError, RuntimeError])
def test_a_moved_name_of_the_loop_costs_speed_alone(error: type, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def gone(source: str) -> None:
        raise error("torch._inductor.codecache has no CppCodeCache")

    def keep(*arguments: Any) -> Any:
        made.append(make(*arguments))
        return made[-1]

    make = compile_step._loop
    monkeypatch.setattr(compile_step, "_loop", keep)
    monkeypatch.setattr(compile_step, "_lowered", lambda *_: None)
    monkeypatch.setattr(cpp_loop, "load_cpp", gone)
    found = svi(linear.model, guides.mean_field, *DATA, num_steps=10, engine="compiled", progress=False)
    assert found.info.engine == "compiled"
    assert isinstance(made[0], compile_step.PythonLoop)


@pytest.mark.filterwarnings("ignore:nuts.*not mixed")  # of a short run
@pytest.mark.parametrize("error", [ImportError, AttributeError])
def test_a_private_name_of_numpyros_that_moved_means_pyros_sampler(
    error: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numpyro")
    from guidebook.inference.engines.xla import sampler

    def gone(*_: Any, **__: Any) -> None:
        raise error("numpyro.infer.hmc has no hmc")

    monkeypatch.setattr(sampler, "nuts_kernel", gone)
    monkeypatch.setattr(sys.modules[nuts.__module__], "WORTH_COMPILING", 10)
    with pytest.warns(UserWarning, match=r"Pyro samples, more slowly .*: numpyro.infer.hmc has no hmc"):
        found = nuts(linear.model, *DATA, num_draws=20, num_warmup=30, num_chains=1, progress=False)
    assert found.info.engine == "pyro"


# Graphs are checked at several points


def drifting(change: float, after: int) -> Callable[[dict[str, Tensor]], Tensor]:
    """A potential of about a thousand nats that changes, relative to that, from one call on."""
    calls = 0

    def potential(params: dict[str, Tensor]) -> Tensor:
        nonlocal calls
        calls += 1
        return (1e3 + params["z"].square().sum()) * (1 + change if calls > after else 1)

    return potential


def test_a_potential_is_compared_at_three_points() -> None:
    """Recorded in the first call, and compared in the second, third and fourth."""
    at = {"z": torch.ones(3, dtype=F8)}
    for after in (2, 3):
        assert traced(drifting(1e-3, after), at) is None
        assert traced(drifting(1e-3, after), at, gradient=False) is None
    assert traced(drifting(1e-3, 4), at) is not None
    assert traced(drifting(1e-3, 2), at, num_checks=1) is not None


def test_potentials_of_several_sites_are_recorded() -> None:
    at = {"a": torch.ones(3, dtype=F8), "b": torch.zeros(2, dtype=F8)}
    graph = traced(lambda sites: sites["a"].square().sum() + sites["b"].exp().sum(), at)
    assert graph is not None
    assert float(graph({"a": torch.full((3,), 2.0, dtype=F8), "b": at["b"]})) == 14


@pytest.mark.parametrize("factor", [torch.linalg.cholesky, torch.linalg.inv])
def test_a_graph_is_nan_where_a_matrix_has_no_factorisation(factor: Callable[[torch.Tensor], torch.Tensor]) -> None:
    def potential(sites: dict[str, torch.Tensor]) -> torch.Tensor:
        return factor(torch.eye(2, dtype=F8) * sites["z"]).sum()

    for gradient in (True, False):
        graph = traced(potential, {"z": torch.ones((), dtype=F8)}, gradient=gradient)
        assert graph is not None
        assert float(graph({"z": torch.tensor(4.0, dtype=F8)})) == (4 if factor is torch.linalg.cholesky else 0.5)
        assert torch.isnan(graph({"z": torch.zeros((), dtype=F8)}))


def test_a_potential_agrees_up_to_rounding() -> None:
    at = {"z": torch.ones(3, dtype=F8)}
    assert traced(drifting(0.8e-9, 1), at) is not None
    assert traced(drifting(1.3e-9, 1), at) is None
    at = {"z": torch.ones(3)}
    assert traced(drifting(0.8e-3, 1), at) is not None
    assert traced(drifting(1.3e-3, 1), at) is None


def test_a_step_is_compared_at_every_sample() -> None:
    """A loss that changes at the fourth call: the one to record, and two samples, do not show it."""
    calls = 0
    z = torch.ones(3, dtype=F8, requires_grad=True)

    def loss(*_: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return z.square().sum() * (2 if calls > 3 else 1)

    def record(samples: int) -> None:
        nonlocal calls
        calls = 0
        trace_step(loss, lambda: None, lambda: None, [z], [()] * samples, [])

    record(2)
    with pytest.raises(CannotCompile, match="the recorded step disagrees with the eager one"):
        record(3)


def test_a_fit_compares_three_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def keep(loss: Any, model: Any, guide: Any, leaves: Any, samples: list[tuple], rows: list[int]) -> Any:
        seen.extend(sample[0] for sample in samples)
        raise CannotCompile("enough seen")

    monkeypatch.setattr(fit, "trace_step", keep)
    with pytest.raises(ValueError, match="enough seen"):
        svi(linear.model, guides.mean_field, *DATA, batch_size=7, num_steps=9, engine="compiled", progress=False)
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


# Noise, scans, constants


def test_noise_keeps_the_bounds_and_the_moments_that_it_was_drawn_with() -> None:
    def step(p: Tensor) -> tuple[Tensor, ...]:
        new = torch.empty_like
        return (
            p * new(p).uniform_(-2, 3), p + new(p).normal_(5, 0.5), p * torch.rand_like(p), p - torch.randn_like(p)
        )  # fmt: skip

    p = torch.tensor([1.0, 10.0], dtype=F8)
    pure = functionalise.functionalise(make_fx(step)(p), [p])
    assert pure.noise == (4, 4)
    normal, uniform = torch.tensor([0.1, -0.2, 0.3, 0.4], dtype=F8), torch.tensor([0.0, 1.0, 0.25, 0.5], dtype=F8)
    found = torch.fx.Interpreter(pure.graph).run(p, normal, uniform, *pure.constants, enable_io_processing=False)
    wanted = [[-2.0, 30.0], [6.05, 14.9], [0.25, 5.0], [0.7, 9.6]]
    torch.testing.assert_close(torch.stack(list(found)), torch.tensor(wanted, dtype=F8))


def test_a_rewritten_step_that_disagrees_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(functionalise.UNROLLED, torch.ops.aten.cumsum.default, lambda x, dim: x)
    p = torch.ones(3, dtype=F8)
    with pytest.raises(CannotCompile, match="as a pure function disagrees with the recorded one"):
        functionalise.functionalise(make_fx(lambda p: (p.clone().mul_(2).cumsum(0).sum(),))(p), [p])


def test_scans_of_up_to_eight_numbers_are_written_out() -> None:
    x = torch.arange(1.0, 9.0)
    torch.testing.assert_close(functionalise.cumprod(x, 0), x.cumprod(0))
    assert functionalise.cumprod(torch.ones(9), 0) is NotImplemented


def test_constants_are_folded_up_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """exp of the data is computed beforehand if it is small enough; otherwise the data are the constant."""
    data, p = torch.arange(6.0, dtype=F8), torch.ones(6, dtype=F8)

    def constant() -> Tensor:
        return functionalise.functionalise(make_fx(lambda p: ((data.exp() * p).sum(),))(p), [p]).constants[0]

    monkeypatch.setattr(functionalise, "MAX_FOLDED", 6)
    torch.testing.assert_close(constant(), data.exp())
    monkeypatch.setattr(functionalise, "MAX_FOLDED", 5)
    torch.testing.assert_close(constant(), data)


def test_equal_operations_run_once() -> None:
    def step(p: Tensor) -> tuple[Tensor, ...]:
        return p.exp() * 2 + p.exp() * 2 + p.exp() * 2.5, torch.sub(p, 3), torch.sub(p, 3, alpha=2)

    p = torch.tensor([0.5, -1.0], dtype=F8)
    pure = functionalise.functionalise(make_fx(step)(p), [p])
    names = [str(node.target) for node in pure.graph.graph.nodes if node.op == "call_function"]
    assert names.count("aten.exp.default") == 1
    assert names.count("aten.mul.Tensor") == 2
    found = torch.fx.Interpreter(pure.graph).run(p, p[:0], p[:0], *pure.constants, enable_io_processing=False)
    for ours, wanted in zip(found, step(p), strict=True):
        torch.testing.assert_close(ours, wanted)


# Machine code

needs_compiler = pytest.mark.skipif(bool(compile_step.no_compiler()), reason="there is no C++ compiler")


@needs_compiler
def test_a_product_and_a_sum_keep_their_factors_in_the_loop() -> None:
    """``2 c + a b / 2``: the step of the C++ loop is the graph's, with the factors in their own places."""
    draw = torch.Generator().manual_seed(0)
    c, a, b = (torch.randn(shape, generator=draw, dtype=F8) for shape in ((20, 12), (20, 30), (30, 12)))

    def step(p: Tensor) -> tuple[Tensor, Tensor]:
        made = torch.addmm(c, a * p, b, beta=2, alpha=0.5)
        return made.square().mean(), made.sum(1)[:1] * p

    p = torch.tensor([0.7], dtype=F8)
    pure = functionalise.functionalise(make_fx(step)(p), [p])
    rule = sgd()
    loop = compile_step.compile_step(pure, rule, [p], [])
    assert isinstance(loop, cpp_loop.CppLoop)
    assert any("product<" in line and line.endswith(", 0.5, 2);") for line in loop._calls.lines)
    wanted, _ = step(p)
    numbers = torch.tensor([[0.0, 1.0]], dtype=F8)
    torch.testing.assert_close(loop.run([numbers, *torch.empty(2, 1, 0, dtype=F8)]), wanted[None])


@needs_compiler
@pytest.mark.parametrize(("more", "scalar"), [(0, False), (1, True)])
def test_steps_on_small_tensors_use_no_vector_instructions(
    more: int, scalar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def keep(*_: Any, scalar: bool) -> None:
        seen.append(scalar)
        raise RuntimeError("enough seen")

    p, size = torch.ones(3, dtype=F8), 50
    pure = functionalise.functionalise(make_fx(lambda p: (p.expand(size, 3).cos().sum(), p.exp()))(p), [p])
    monkeypatch.setattr(compile_step, "compile_graph", keep)
    monkeypatch.setattr(compile_step, "_lowered", lambda *_: None)
    monkeypatch.setattr(compile_step, "SMALL", 3 * size + more)
    with pytest.raises(CannotCompile, match="torch cannot compile it: RuntimeError: enough seen"):
        compile_step.compile_step(pure, sgd(), [p], [])
    assert seen == [scalar]


def test_products_go_to_torch_above_a_number_of_multiplications() -> None:
    def product(columns: int) -> str:
        a, b = torch.zeros(100, 100), torch.zeros(100, columns)
        return small_matrices.product(torch.zeros(columns), a, b, torch.zeros(100, columns), 1, 0)[0]

    assert product(30).startswith("product<1, 100, 100, 30")
    with pytest.raises(small_matrices.Unsupported, match="large matrices"):
        product(31)


# JAX


def test_the_step_size_of_the_draws_is_the_averaged_one() -> None:
    """Hoffman and Gelman, equation 6: the last iteration of warm-up leaves the average, those before it the iterate."""
    pytest.importorskip("numpyro")
    import jax

    from guidebook.inference.engines.xla import adapt

    state_type = namedtuple("state_type", "z z_grad accept_prob adapt_state")
    kernel_type = namedtuple("kernel_type", "step_size inverse_mass_matrix mass_matrix_sqrt mass_matrix_sqrt_inv")
    unit = [np.eye(2, dtype="f4")] * 3
    num_warmup, target, centre = 12, 0.8, math.log(adapt.OVERSHOOT * adapt.FIRST_STEP)
    update = jax.jit(adapt.adaptation(num_warmup, target))
    learned, gaps, log_average, steps, wanted = adapt.init(2, True), 0.0, 0.0, [], []
    for t in range(1, num_warmup + 1):
        accept = 0.3 + 0.6 * (t % 2)
        state = state_type(np.zeros(2, "f4"), np.zeros(2, "f4"), np.float32(accept), kernel_type(np.float32(1), *unit))
        state, learned = update(np.int32(t - 1), state, learned)
        steps.append(float(state.adapt_state.step_size))
        gaps += target - accept
        log_step = centre - math.sqrt(t) / 0.05 * gaps / (t + 10)
        log_average += t**-0.75 * (log_step - log_average)
        wanted.append(math.exp(log_step))
    wanted[-1] = math.exp(log_average)
    assert steps == pytest.approx(wanted, rel=1e-4)
    assert abs(log_average - log_step) > 0.1
    frozen, _ = update(np.int32(num_warmup), state, learned)
    assert float(frozen.adapt_state.step_size) == steps[-1]


def test_programs_hold_neither_data_nor_models_of_a_run_before() -> None:
    """Two runs of one shape, with other data; and with another model."""
    pytest.importorskip("numpyro")
    run = partial(nuts, engine="xla", num_draws=1000, num_warmup=300, num_chains=2, progress=False)
    for shift in (0.0, 5.0):
        x, y = DATA
        exact, found = linear.posterior(x, y + shift), run(linear.model, x, y + shift)
        error = exact.stddev / found.info.ess["w"].sqrt()
        assert ((found.draws["w"].mean((0, 1)) - exact.mean).abs() < 4.5 * error).all()

    def other(x: Tensor, y: Tensor) -> None:
        pyro.sample("w", dist.Normal(x.new_full((3,), 50.0), 1.0).to_event(1))

    found = run(other, *DATA)
    assert ((found.draws["w"].mean((0, 1)) - 50).abs() < 4.5 / found.info.ess["w"].sqrt()).all()


def test_data_are_arguments_of_a_program() -> None:
    pytest.importorskip("numpyro")
    import jax

    from guidebook.inference.engines.xla import sampler

    options = sampler.Options(
        num_draws=1, num_warmup=5, target_accept=0.8, dense=False, chosen=False, first_step=0.01, first_window=20
    )
    data, at = np.array([1.0, 2.0]), np.zeros(2)
    with sampler.setting(at.dtype, "cpu"):
        array = jax.device_put(data)
        program = sampler.compile_program(lambda w, x: 0.5 * ((w - x) ** 2).sum(), [array], at, options)
    for constant in (data, data + 3):
        start = sampler.Start(at, np.asarray(0.5 * (constant**2).sum()), -constant, 0, np.ones(2), 0.01)
        with sampler.setting(at.dtype, "cpu"):
            changed = program._replace(constants=[jax.device_put(constant)])
        for place, potential, gradient in sampler.probe(changed, start, "cpu"):
            assert np.asarray(potential) == pytest.approx(0.5 * ((np.asarray(place) - constant) ** 2).sum())
            np.testing.assert_allclose(gradient, np.asarray(place) - constant)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-2)])
def test_translations_agree_up_to_rounding(dtype: str, tolerance: float) -> None:
    pytest.importorskip("numpyro")
    from guidebook.inference.engines.xla.chains import _agree

    eager = [np.array(values, dtype) for values in ([1.0, 2.0], 100.0, [0.1, 0.2])]
    for position, scale in enumerate((2.0, 100.0, 1.0)):
        for factor, agrees in ((0.8, True), (1.2, False), (-1.2, False)):
            ours = [value.copy() for value in eager]
            ours[position] += np.asarray(factor * tolerance * scale, dtype)
            assert _agree(ours, tuple(eager)) == agrees
    assert not _agree([value.astype("float16") for value in eager], tuple(eager))


@pytest.mark.parametrize(("most", "arguments"), [(4, 0), (3, 1)])
def test_small_masks_are_compiled_in(most: int, arguments: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpyro")
    from guidebook.inference.engines.xla import program, translate

    monkeypatch.setattr(translate, "MAX_MASK", most)
    mask = torch.tensor([True, False, True, True])
    graph = functional(lambda w: torch.where(mask, w, 2 * w).sum(), torch.ones(4, dtype=F8), translate.knows)
    assert len(program.as_jax(graph)[1]) == arguments
