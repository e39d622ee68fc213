"""The calls that a program of Inductor's makes, recorded as lines of C++."""

from collections.abc import Callable, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from . import small_matrices
from .inductor import Kernel, call_with, kernels_of
from .small_matrices import Unsupported


class CppCalls:
    """Run a program once, and record its calls of kernels and its products of small matrices.

    Parameters
    ----------
    program : ModuleType
        As `inductor.compile_graph` returns it.
    inputs : sequence of Tensor
        Its arguments.
    streams : sequence of Tensor
        Those among them that are read from row ``t`` of an array in step ``t``.

    Attributes
    ----------
    results : sequence of Tensor
        What the program returned.
    lines : list of str
        Its calls, where ``at[i]`` is address ``i`` of `addresses` and ``rows[i]`` the array of stream ``i``.
    kernels : list of str
        Source of the kernels.
    addresses : list of int

    Raises
    ------
    Unsupported
        If the program does more than that.
    """

    def __init__(self, program: ModuleType, inputs: Sequence[Tensor], streams: Sequence[Tensor]) -> None:
        self.lines: list[str] = []
        self.kernels: list[str] = []
        self.addresses: list[int] = []
        self._streams, self._number = streams, inputs[0].dtype
        self._alive: list[Tensor] = []  # memory behind the addresses
        names: dict[str, Any] = {
            "empty_strided_cpu": self._empty,
            "extern_kernels": SimpleNamespace(mm=self._mm, bmm=self._mm, addmm=self._addmm),
            "torch": _Torch(linalg_solve_triangular=self._solve, linalg_cholesky_ex=self._cholesky),
        }
        names |= {name: self._recorder(kernel) for name, kernel in kernels_of(program).items()}
        try:
            self.results = call_with(program, names, inputs)
        except (NameError, AttributeError, TypeError) as reason:
            raise Unsupported(str(reason)) from None

    def place(self, tensor: Tensor) -> str:
        """Return a tensor's address as a C++ expression."""
        at = tensor.data_ptr()
        for position, stream in enumerate(self._streams):
            if 0 <= at - stream.data_ptr() < stream.nbytes:
                return f"(rows[{position}] + t * {stream.nbytes} + {at - stream.data_ptr()})"
        self._alive.append(tensor)
        if at not in self.addresses:
            self.addresses.append(at)
        return f"at[{self.addresses.index(at)}]"

    def _empty(self, size: tuple, stride: tuple, dtype: torch.dtype) -> Tensor:
        self._alive.append(torch.empty_strided(size, stride, dtype=dtype))
        return self._alive[-1]

    def _recorder(self, kernel: Kernel) -> Callable[..., None]:
        name = f"kernel_{len(self.kernels)}"
        self.kernels.append(kernel.source(name))

        def record(*tensors: Tensor) -> None:
            if not all(isinstance(value, Tensor) for value in tensors):
                raise Unsupported("a kernel takes more than tensors")
            pairs = zip(kernel.kinds, tensors, strict=True)
            self.lines.append(f"{name}({', '.join(f'({kind}) {self.place(value)}' for kind, value in pairs)});")

        return record

    def _matrices(self, function: str, tensors: list[Tensor], scalars: str) -> None:
        """Record a call of one of `small_matrices`."""
        if any(value.dtype != self._number for value in tensors):
            raise Unsupported("it has matrices of several types")
        places = ", ".join(f"(number*) {self.place(value)}" for value in tensors)
        self.lines.append(f"{function}({places}{scalars});")

    def _mm(self, a: Tensor, b: Tensor, *, out: Tensor) -> None:
        torch.matmul(a, b, out=out)
        self._matrices(*small_matrices.product(out, a, b, out, 1, 0))

    def _addmm(self, c: Tensor, a: Tensor, b: Tensor, *, out: Tensor, alpha: float = 1, beta: float = 1) -> None:
        torch.addmm(c, a, b, alpha=alpha, beta=beta, out=out)
        self._matrices(*small_matrices.product(c, a, b, out, alpha, beta))

    def _solve(self, a: Tensor, b: Tensor, **how: bool) -> Tensor:
        out = torch.linalg.solve_triangular(a, b, **how)
        self._matrices(*small_matrices.solution(a, b, out, **how))
        return out

    def _cholesky(self, a: Tensor, **how: bool) -> tuple[Tensor, Tensor]:
        if how.get("upper"):
            raise Unsupported("it has upper factors")
        out, failed = torch.linalg.cholesky_ex(a)
        self._matrices(*small_matrices.factor(a, out))
        return out, failed


class _Torch:
    """What a program may use of torch: dtypes, and the operations that are recorded."""

    def __init__(self, **operations: Any) -> None:
        found = {name: SimpleNamespace(default=operation) for name, operation in operations.items()}
        self.ops = SimpleNamespace(aten=SimpleNamespace(**found))

    def __getattr__(self, name: str) -> Any:
        if not isinstance(value := getattr(torch, name), torch.dtype):
            raise AttributeError(name)
        return value
