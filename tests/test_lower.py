"""Steps as C++ of our own: every operation against torch, and what has to be left to Inductor."""

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx import GraphModule

from guidebook.inference.engines.compiled import lower
from guidebook.inference.engines.compiled.compile_step import no_compiler
from guidebook.inference.engines.compiled.cpp_loop import CppLoop
from guidebook.inference.engines.compiled.lower import Lowered
from guidebook.inference.engines.compiled.pointwise import _ARITHMETIC, COMPARISONS
from guidebook.inference.engines.compiled.small_matrices import Unsupported
from guidebook.inference.engines.record import record

aten, F8 = torch.ops.aten, torch.float64
INDEX = torch.tensor([3, 0, 3, 2])
needs_compiler = pytest.mark.skipif(bool(no_compiler()), reason="no C++ compiler")


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = F8) -> Tensor:
    """Positive and negative, none of them near zero."""
    draw = torch.Generator().manual_seed(seed)
    sign = torch.rand(shape, generator=draw, dtype=dtype) - 0.5
    return sign.sign() * (0.2 + torch.rand(shape, generator=draw, dtype=dtype))


def assert_lowered(functions: list[Callable], x: Tensor, changed: Tensor, *data: Tensor) -> Lowered:
    """Compiled at ``x``, all functions of it and the data return at ``changed`` what they return in torch."""
    with torch.no_grad():
        sizes = [function(x, *data).numel() for function in functions]

        def step(_: Tensor, values: Tensor, *given: Tensor) -> tuple[Tensor, Tensor]:
            return values.sum(), torch.cat([f(values, *given).to(x.dtype).reshape(-1) for f in functions])

        inputs = [x.new_zeros(sum(sizes)), x, *data]
        loop = CppLoop(partial(Lowered, record(step, inputs).module(), changing=2), inputs, 1, [1], 0)
        loss = loop.run([changed[None]])
        torch.testing.assert_close(loss[0], changed.sum())
        for place, (function, ours) in enumerate(zip(functions, loop.state[0].split(sizes), strict=True)):
            expected = function(changed, *data).to(x.dtype).reshape(-1)
            same = torch.allclose(ours, expected, rtol=1e-5 if x.dtype == torch.float32 else 1e-10, equal_nan=True)
            assert same, f"function {place}: {ours} is not {expected}"
    return loop._calls  # pyright: ignore


UNARY = [
    "abs",
    "asinh",
    "clone",
    "cos",
    "cosh",
    "erf",
    "exp",
    "expm1",
    "neg",
    "reciprocal",
    "relu",
    "sgn",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "square",
    "tanh",
    "isnan",
    "logical_not",
]
OF_POSITIVE = ["lgamma", "log", "log1p", "rsqrt", "sqrt"]
BINARY = ["eq", "ne", "lt", "le", "gt", "ge", "maximum", "minimum", "mul", "div"]
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: torch.add(x, x.flip(0), alpha=3) + (x.new_ones(()) + 2),
    "addcdiv": lambda x: torch.addcdiv(x, x.exp(), x, value=2),
    "addcmul": lambda x: torch.addcmul(x, x.exp(), x, value=2),
    "binary_cross_entropy_with_logits": lambda x: aten.binary_cross_entropy_with_logits(x, x.sigmoid(), None, None, 0),
    "bitwise_and": lambda x: (x > 0) & (x < 0.6),
    "bitwise_or": lambda x: (x > 0) | (x < -0.6),
    "bitwise_not": lambda x: ~(x > 0),
    "clamp": lambda x: torch.cat([x.clamp(-0.3, 0.4), x.clamp(min=0.3), x.clamp(max=0.3)]),
    "clamp_max": lambda x: aten.clamp_max(x, 0.1),
    "clamp_min": lambda x: aten.clamp_min(x, 0.1),
    "copy": lambda x: aten.copy(torch.zeros_like(x), x[:1]),
    "fill": lambda x: aten.fill(x, 0.3),
    "log_sigmoid_backward": lambda x: aten.log_sigmoid_backward(x.exp(), x, aten.log_sigmoid_forward(x)[1]),
    "log_sigmoid_forward": lambda x: aten.log_sigmoid_forward(x)[0],
    "logical_and": lambda x: (x > 0).logical_and(x < 0.5),
    "logical_or": lambda x: (x > 0).logical_or(x < -0.5),
    "masked_fill": lambda x: x.masked_fill(x > 0, -torch.inf),
    "pow": lambda x: torch.stack([x**2, x**3, x**-1, x**-2, x.abs() ** 0.5, x.abs() ** -0.5, x.abs() ** 1.7]),
    "power of tensors": lambda x: torch.cat([x.abs() ** x, 2**x]),
    "reshape": lambda x: x.view(5, 4).T.reshape(-1),
    "rsub": lambda x: torch.rsub(x, 0.3, alpha=2),
    "sigmoid_backward": lambda x: aten.sigmoid_backward(x, x.exp()),
    "softplus": lambda x: torch.cat([aten.softplus(x, 2.0, 1.0), aten.softplus(x)]),
    "softplus_backward": lambda x: aten.softplus_backward(x.exp(), x, 2.0, 1.0),
    "sub": lambda x: torch.sub(x, x.flip(0), alpha=3),
    "tanh_backward": lambda x: aten.tanh_backward(x, x.exp()),
    "threshold_backward": lambda x: aten.threshold_backward(x.exp(), x, 0.1),
    "where": lambda x: torch.where(x > 0, x.exp(), 2.0),
    "maximum of nan": lambda x: torch.maximum(x.log(), x) + torch.minimum(x.exp(), (-x).log()),
    "xlogy": lambda x: torch.xlogy(torch.where(x > 0.5, 0.0, x), x.abs()),
    "_to_copy": lambda x: torch.cat([x.float().to(x.dtype), (3 * x).long().to(x.dtype), (x > 0).to(x.dtype)]),
}


@needs_compiler
@pytest.mark.parametrize("dtype", [F8, torch.float32])
def test_operations_on_numbers_are_torchs(dtype: torch.dtype) -> None:
    assert {*UNARY, *OF_POSITIVE, *BINARY, *OTHERS} - {"clamp", "maximum of nan", "pow", "power of tensors"} == {
        *_ARITHMETIC,
        *COMPARISONS,
    }
    functions: list[Callable] = [getattr(aten, name) for name in UNARY]
    functions += [lambda x, name=name: getattr(aten, name)(x.abs()) for name in OF_POSITIVE]
    functions += [lambda x, name=name: getattr(aten, name)(x, x.flip(0).clamp(-0.5, 0.5)) for name in BINARY]
    functions += OTHERS.values()
    assert_lowered(functions, numbers(20, dtype=dtype), numbers(20, seed=1, dtype=dtype))


@needs_compiler
def test_sums_and_largest_entries_are_over_any_dimensions() -> None:
    def of(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: function(x.view(2, 3, 4).exp())

    reductions = [
        of(lambda y: y.sum()),
        of(lambda y: y.mean()),
        of(lambda y: y.transpose(0, 2).log().sum(1)),
        of(lambda y: y.amax((0, 2))),
        of(lambda y: (-y).max()),
        of(lambda y: aten.max.dim(y, 1)[0]),
        of(lambda y: (y > 1).sum(0)),
        of(lambda y: y.logsumexp((0, 1))),
        of(lambda y: y.log_softmax(1)),
        of(lambda y: y.softmax(0)),
        of(lambda y: aten._log_softmax_backward_data(y, y.log_softmax(1), 1, y.dtype)),
        of(lambda y: aten._softmax_backward_data(y, y.softmax(2), 2, y.dtype)),
        of(lambda y: (y - y.sum(1, keepdim=True)).square().mean(0)),
    ]
    for dims in (0, 1, 2, (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        reductions += [of(lambda y, d=dims: y.sum(d)), of(lambda y, d=dims: y.log().mean(d, keepdim=True))]
    assert_lowered(reductions, numbers(24), numbers(24, seed=1))


@needs_compiler
def test_sums_of_a_prime_number_of_entries() -> None:
    """No number of entries at a time divides it."""
    sums: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.exp().sum(),
        lambda x: torch.stack([x.sin().amax(), x.abs().mean()]),
        lambda x: (x.expand(3, 263) * torch.arange(789.0, dtype=F8).view(3, 263)).sum(1),
    ]
    assert_lowered(sums, numbers(263), numbers(263, seed=1))


@needs_compiler
def test_tall_matrices_of_data_multiply_vectors() -> None:
    products: list[Callable] = [lambda x, tall: aten.mv(tall, x[:3]), lambda x, tall: aten.mv(tall.T, x)]
    found = assert_lowered(products, numbers(50), numbers(50, seed=1), numbers(50, 3, seed=3))
    assert [line for line in found.lines if line.startswith("for (int i1")] == [
        "for (int i1 = 0; i1 < 50; ++i1) {",
        "for (int i1 = 0; i1 < 50; ++i1) {",
    ]


@needs_compiler
def test_products_and_factors_are_torchs() -> None:
    fixed = numbers(6, 4, seed=3)

    def spd(x: Tensor) -> Tensor:
        return x.view(6, 4).T @ x.view(6, 4) + torch.eye(4, dtype=F8)

    matrices: list[Callable[[Tensor], Tensor]] = [
        lambda x: aten.mv(x.view(6, 4), x[:4]),
        lambda x: aten.mv(x.view(6, 4).T, x[:6]),
        lambda x: aten.mv(fixed, x[1:5]),
        lambda x: aten.dot(x[:7], x[9:16].exp()),
        lambda x: aten.mm(x.view(6, 4), x.view(4, 6)),
        lambda x: aten.mm(x.view(24, 1).T, x.view(6, 4).reshape(24, 1)),
        lambda x: aten.mm(x.view(6, 4), x[:4].unsqueeze(1)),
        lambda x: aten.bmm(x.view(2, 3, 4), x.view(2, 4, 3)),
        lambda x: aten.addmm(x[:6], x.view(6, 4), x.view(4, 6), beta=0.5, alpha=2),
        lambda x: torch.linalg.cholesky_ex(spd(x))[0],
        lambda x: torch.linalg.solve_triangular(torch.linalg.cholesky_ex(spd(x))[0], x.view(4, 6), upper=False),
    ]
    assert_lowered(matrices, numbers(24), numbers(24, seed=1))


@needs_compiler
def test_entries_go_where_torch_moves_them() -> None:
    def square(x: Tensor) -> Tensor:
        return x.view(4, 4)

    moves: list[Callable[[Tensor], Tensor]] = [
        lambda x: torch.cat([square(x), square(x).T], 1),
        lambda x: torch.stack([x, x.exp()], 1),
        lambda x: aten.slice_backward(x[:4], [9], 0, 1, 9, 2),
        lambda x: aten.select_backward(x[:4], [4, 3], 1, 2),
        lambda x: aten.diagonal_backward(x[:4], [4, 4], 0, 0, 1),
        lambda x: aten.constant_pad_nd(x[:4], [1, 2], 1.5),
        lambda x: square(x).tril(),
        lambda x: square(x).triu(1),
        lambda x: x.flip(0),
        lambda x: x[:4].diag_embed(),
        lambda x: aten.slice_scatter(square(x), x[:4].view(4, 1), 1, 2, 3),
        lambda x: aten.select_scatter(square(x), x[:4], 0, 1),
        lambda x: aten.diagonal_scatter(square(x), x[:4]),
        lambda x: aten.as_strided_scatter(x, x[:4].exp(), [4], [5], 0),
        lambda x: x.index_select(0, INDEX),
        lambda x: square(x).gather(1, INDEX.view(4, 1)),
        lambda x: square(x)[:, INDEX],
        lambda x: aten.index_add(square(x), 0, INDEX, square(x).exp()),
        lambda x: aten.index_put(x, [INDEX], x[:4].exp(), True),
        lambda x: aten.index_put(x, [INDEX[1:]], x[:3].exp()),
        lambda x: square(x).scatter_add(1, INDEX.view(4, 1), x[:4].view(4, 1)),
        lambda x: x.view(2, 8).unbind(1)[3],
        lambda x: square(x).T.repeat(2, 1),
    ]
    assert_lowered(moves, numbers(16), numbers(16, seed=1))


@needs_compiler
def test_a_chain_of_operations_goes_through_memory_once() -> None:
    found = assert_lowered([lambda x: (x.exp() + 1).log() * x.sum()], numbers(50), numbers(50, seed=1))
    loops = [line for line in found.lines if line.startswith("for (int i0")]
    assert len(loops) == 2  # the sum with what does not need it, and the rest


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: torch.bernoulli(x.sigmoid()), "draws by bernoulli"),
        (lambda x: x.digamma(), "digamma"),
        (lambda x: x.gather(0, x.argsort()), "argsort|sort"),
        (lambda x: torch.linalg.cholesky_ex(x[:4].view(2, 2))[1], "second result"),
        (lambda x: torch.div(x, 0.3, rounding_mode="floor"), "div"),
    ],
)
def test_what_is_not_known_is_left_to_inductor(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        lowered(function, 12)


@pytest.mark.parametrize(("name", "value"), [("MAX_NUMBERS", 12), ("MAX_NODES", 5)])
def test_large_steps_are_left_to_inductor(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lower, name, value)
    lowered(lambda x: x.exp(), 12)
    with pytest.raises(Unsupported, match=r"large tensors|many operations"):
        lowered((lambda x: x.exp()) if name == "MAX_NUMBERS" else (lambda x: x.exp().exp()), 13)


def lowered(function: Callable[[Tensor], Tensor], size: int) -> Lowered:
    def step(_: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.sum(), function(x)

    inputs = [torch.zeros(size, dtype=F8), numbers(size)]
    graph: GraphModule = record(step, inputs, draws=True).module()
    return Lowered(graph, inputs, inputs[1:], 2)


COLD = """
import sys
from guidebook import guides
from guidebook.inference import svi
from guidebook.models import logistic
import torch
x = torch.arange(12.0).reshape(6, 2).sin()
y = (x[:, 0] > 0).float()
found = svi(logistic.model, guides.mean_field, x, y, num_steps=9, engine="compiled", progress=False)
print(found.info.engine, [name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


@needs_compiler
@pytest.mark.slow
def test_small_steps_are_compiled_without_torchs_compiler(tmp_path: Path) -> None:
    """Importing it takes longer than all of the rest."""
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    run = partial(subprocess.run, [sys.executable, "-W", "ignore", "-c", COLD], env=environment, text=True)
    for _ in range(2):
        done = run(capture_output=True, check=False)
        assert (done.returncode, done.stdout) == (0, "compiled []\n"), done.stderr
        (library,) = tmp_path.rglob("*.so")
        os.truncate(library, library.stat().st_size // 2)  # of a compiler that was killed: made anew
