"""Machine code for small matrices against torch, over shapes, layouts and types."""

import ctypes
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from guidebook.inference.engines.compiled import small_matrices
from guidebook.inference.engines.compiled.compile_step import no_compiler
from guidebook.inference.engines.compiled.inductor import load_cpp

pytestmark = pytest.mark.skipif(bool(no_compiler()), reason="there is no C++ compiler")
TYPES = {torch.float64: ("double", 1e-12), torch.float32: ("float", 1e-5)}


def generator(*sizes: int) -> torch.Generator:
    return torch.Generator().manual_seed(sum(size * 31**i for i, size in enumerate(sizes)))


def layouts(shape: tuple[int, ...], dtype: torch.dtype, draw: torch.Generator) -> list[Tensor]:
    """The same matrix in memory by rows, by columns, and with gaps."""
    value = torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype)
    wide = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=dtype)[..., ::2]
    return [value, value.mT.clone(memory_format=torch.contiguous_format).mT, wide.copy_(value)]


def run(calls: list[tuple[str, list[Tensor], str]], dtype: torch.dtype) -> None:
    """Compile calls into one function, and call it."""
    tensors = [tensor for _, given, _ in calls for tensor in given]
    names = iter(f"(number*) at[{position}]" for position in range(len(tensors)))
    body = [f"{name}({', '.join(next(names) for _ in given)}{further});" for name, given, further in calls]
    loop = f'extern "C" void play(void* const* at) {{ {" ".join(body)} }}'
    function = load_cpp("\n".join([f"typedef {TYPES[dtype][0]} number;", small_matrices.SOURCE, loop])).play
    function((ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors)))


def assert_all(cases: list[tuple[Callable, Tensor, Tensor]], dtype: torch.dtype) -> None:
    """Each case: what writes the call down for the tensor to fill in, that tensor, and what is expected."""
    run([write(out) for write, out, _ in cases], dtype)
    for _, out, expected in cases:
        torch.testing.assert_close(out, expected, rtol=TYPES[dtype][1], atol=TYPES[dtype][1] * 30)


@pytest.mark.parametrize("dtype", list(TYPES))
def test_products(dtype: torch.dtype) -> None:
    cases = []
    for m, k, n in ((1, 1, 1), (2, 50, 3), (30, 2, 9), (4, 7, 40), (5, 1, 5), (12, 13, 14)):
        draw = generator(m, k, n)
        c = torch.randn(n, generator=draw, dtype=torch.float64).to(dtype)
        for a, b in product(layouts((3, m, k), dtype, draw), layouts((3, k, n), dtype, draw)):
            for out in layouts((3, m, n), dtype, draw):
                cases.append(
                    (lambda out, a=a, b=b, c=c: small_matrices.product(c, a, b, out, 0.5, 2), out, a @ b / 2 + 2 * c)
                )
            nothing = torch.full((m, n), torch.nan, dtype=dtype)
            cases.append(
                (lambda out, a=a, b=b: small_matrices.product(out, a[0], b[0], out, 1, 0), nothing, a[0] @ b[0])
            )
    assert_all(cases, dtype)


@pytest.mark.parametrize("dtype", list(TYPES))
def test_triangular_systems(dtype: torch.dtype) -> None:
    cases = []
    for size, columns in ((1, 3), (4, 1), (4, 50), (13, 6)):
        draw = generator(size, columns)
        for upper in (False, True):
            for left in (False, True):
                for unitriangular in (False, True):
                    how = {"upper": upper, "left": left, "unitriangular": unitriangular}
                    for a in layouts((3, size, size), dtype, draw):
                        a /= 3
                        a.diagonal(dim1=-2, dim2=-1).add_(3)
                        a.copy_(a.triu() if upper else a.tril())
                        b = layouts((3, size, columns) if left else (3, columns, size), dtype, draw)[1]
                        expected = torch.linalg.solve_triangular(a, b, **how)
                        out = torch.empty_like(expected)
                        cases.append(
                            (lambda out, a=a, b=b, how=how: small_matrices.solution(a, b, out, **how), out, expected)
                        )
    assert_all(cases, dtype)


@pytest.mark.parametrize("dtype", list(TYPES))
def test_cholesky_factors(dtype: torch.dtype) -> None:
    cases = []
    for size in (1, 2, 5, 13):
        for root in layouts((3, size, size), dtype, generator(size)):
            square = root @ root.mT + torch.eye(size, dtype=dtype)
            out = torch.full_like(square, torch.nan)
            cases.append((lambda out, a=square: small_matrices.factor(a, out), out, torch.linalg.cholesky(square)))
    assert_all(cases, dtype)
    bad = torch.empty(1, 2, 2, dtype=dtype)
    run([small_matrices.factor(-torch.eye(2, dtype=dtype)[None], bad)], dtype)
    assert bad.isnan().any()


def test_large_matrices_are_left_to_torch() -> None:
    a = torch.zeros(100, 100)
    for call in (
        lambda: small_matrices.product(a, a, a, a, 1, 0),
        lambda: small_matrices.solution(a, a, a, upper=False),
        lambda: small_matrices.factor(a, a),
        lambda: small_matrices.factor(torch.zeros(4, 4, 2, 2).transpose(0, 1), torch.zeros(4, 4, 2, 2)),
    ):
        with pytest.raises(small_matrices.Unsupported):
            call()
