"""Compiled steps one after another in a loop of machine code, without Python between them.

On a CPU a call of Inductor's program always comes to the same: the same few functions of machine code, and small
products of matrices, at the same places in memory. They are written down once, as a CUDA graph writes down its
launches, and a loop around them is compiled: noise is read where it lies, rows of a batch are gathered and those of the
next are asked of memory meanwhile, and what one step gives the next one takes.
"""

import ctypes
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...optim.minibatch import Picked, gathered
from . import small_matrices

AHEAD = 256  # bytes, at most, of a row of the next step's batch that are asked of memory a step before
WORDS = 200  # bytes, at most, of what a function of machine code says of an error
NUMBERS = {torch.float32: "float", torch.float64: "double"}


class Unplayable(Exception):  # noqa: N818 (a finding, which the caller answers)
    """A program that does more than call functions of machine code and multiply small matrices."""


class Kernel:
    """A function of machine code that Inductor wrote, to be compiled by itself or as part of a loop.

    Parameters
    ----------
    kinds : list of str
        Types of its arguments.
    code : str
        C++, with the function ``kernel``.
    """

    def __init__(self, kinds: list[str], code: str) -> None:
        self.kinds, self.code = kinds, code

    @cached_property
    def function(self) -> Callable[..., None]:
        """The function, compiled by itself."""
        from torch._inductor.codecache import CppPythonBindingsCodeCache

        return CppPythonBindingsCodeCache.load_pybinding(self.kinds, self.code)

    def __call__(self, *arguments: Any) -> None:
        """Call the function."""
        self.function(*arguments)


class Player:
    """Takes steps in a row.

    Parameters
    ----------
    program : ModuleType
        What Inductor wrote.
    inputs : sequence of Tensor
        Arguments of the program: the state, then the rest.
    states : int
        How many of the arguments a step gives anew, behind its loss.
    streams : sequence of int
        Positions of the arguments that change from step to step.
    picked : int
        How many of these, at the end, are batches of rows.

    Raises
    ------
    Unplayable
    """

    def __init__(
        self, program: ModuleType, inputs: Sequence[Tensor], states: int, streams: Sequence[int], picked: int
    ) -> None:
        self.state = [value.clone() for value in inputs[:states]]
        self._inputs = [
            *self.state,
            *(value.clone() for value in inputs[states : streams[-1] + 1]),
            *inputs[streams[-1] + 1 :],
        ]
        self._streams = [self._inputs[position] for position in streams[: len(streams) - picked]]
        self._kept: list[Any] = []  # what the table points to
        self._table: list[int] = []
        self._kernels: list[str] = []
        self._lines: list[str] = []
        self._number = self.state[0].dtype
        for position in range(len(self._streams), len(streams)):
            batch = self._inputs[streams[position]]
            size = len(batch)
            row = f"{batch.nbytes // size}>({self._place(batch)}, rows[{position}]"
            self._lines.append(f"fetch<{row}, index + t * {size}, {size}, t + 1 < steps);")
        loss, *after = self._record(program)
        if self._number not in NUMBERS or any(value.dtype != self._number for value in (loss, *after)):
            raise Unplayable("it has numbers of several types")
        self._lines.append(f"losses[t] = *(number*) {self._place(loss)};")
        if not all(value.is_contiguous() for value in after):
            raise Unplayable("its state has gaps")
        for ours, new in zip(self.state, after, strict=True):
            self._lines.append(f"memcpy({self._place(ours)}, {self._place(new)}, {new.nbytes});")
        self._loop = _compile(self._source())
        self._pointers = (ctypes.c_void_p * len(self._table))(*self._table)

    def play(self, streams: Sequence[Tensor | Picked]) -> Tensor:
        """Take a step for each row of the streams, contiguous and shaped (step, …); returns the losses (step,)."""
        plain = [value for value in streams if isinstance(value, Tensor)]
        picked = [value for value in streams if isinstance(value, Picked)]
        if not all(value.data.is_contiguous() for value in picked):
            index = torch.arange(picked[0].rows.numel()).view_as(picked[0].rows)
            picked = [Picked(gathered(value).flatten(0, 1), index) for value in picked]
        index = picked[0].rows.contiguous() if picked else torch.empty(0, dtype=torch.long)
        places = [value.data_ptr() for value in (*plain, *(value.data for value in picked))]
        rows = (ctypes.c_void_p * len(places))(*places)
        losses, words = torch.empty(len(plain[0]), dtype=self._number), ctypes.create_string_buffer(WORDS)
        table = [self._pointers, rows, *(ctypes.c_void_p(value.data_ptr()) for value in (index, losses))]
        if self._loop(ctypes.c_int64(len(losses)), *table, words):
            raise RuntimeError(words.value.decode(errors="replace"))
        return losses

    def _record(self, program: ModuleType) -> Sequence[Tensor]:
        """Run the program once, with what it calls replaced by what writes the call down."""
        call = program.Runner.call.__code__
        plain = "assert_size_stride", "assert_alignment", "reinterpret_tensor"
        names: dict[str, Any] = {name: getattr(program, name) for name in plain}
        names["empty_strided_cpu"] = self._empty
        names["extern_kernels"] = SimpleNamespace(mm=self._mm, bmm=self._mm, addmm=self._addmm)
        names["torch"] = _Torch(linalg_solve_triangular=self._solve, linalg_cholesky_ex=self._cholesky)
        names |= {name: self._kernel(value) for name, value in vars(program).items() if isinstance(value, Kernel)}
        try:
            return FunctionType(call, names)(None, list(self._inputs))
        except (NameError, AttributeError, TypeError, small_matrices.TooLarge) as reason:
            raise Unplayable(str(reason)) from None

    def _empty(self, *shape_stride_type: Any) -> Tensor:
        size, stride, dtype = shape_stride_type
        self._kept.append(torch.empty_strided(size, stride, dtype=dtype))
        return self._kept[-1]

    def _place(self, tensor: Tensor) -> str:
        """Where a tensor lies, as an expression of C."""
        at = tensor.data_ptr()
        for position, stream in enumerate(self._streams):
            if 0 <= at - stream.data_ptr() < stream.nbytes:
                return f"(rows[{position}] + t * {stream.nbytes} + {at - stream.data_ptr()})"
        self._kept.append(tensor)
        if at not in self._table:
            self._table.append(at)
        return f"at[{self._table.index(at)}]"

    def _kernel(self, kernel: Kernel) -> Callable[..., None]:
        name = f"kernel_{len(self._kernels)}"
        here = f"static inline void {name}("
        self._kernels.append(re.sub(r'extern "C"\s+void\s+kernel\(', here, kernel.code.replace(_PREFIX, ""), count=1))

        def write_down(*tensors: Tensor) -> None:
            if not all(isinstance(value, Tensor) for value in tensors):
                raise Unplayable("a function takes more than tensors")
            pairs = zip(kernel.kinds, tensors, strict=True)
            self._lines.append(f"{name}({', '.join(f'({kind}) {self._place(value)}' for kind, value in pairs)});")

        return write_down

    def _matrices(self, function: str, tensors: list[Tensor], further: str) -> None:
        """Write a call of one of `small_matrices` down, which gives ``(function, tensors, further)``."""
        if any(value.dtype != self._number for value in tensors):
            raise Unplayable("it has matrices of several types")
        places = ", ".join(f"(number*) {self._place(value)}" for value in tensors)
        self._lines.append(f"{function}({places}{further});")

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
            raise Unplayable("it has upper factors")
        out, failed = torch.linalg.cholesky_ex(a)
        self._matrices(*small_matrices.factor(a, out))
        return out, failed

    def _source(self) -> str:
        body = "\n      ".join(self._lines)
        number = f"typedef {NUMBERS[self._number]} number;"
        return "\n".join([_PREFIX, number, small_matrices.SOURCE, *self._kernels, _LOOP.replace("BODY", body)])


class _Torch:
    """What a program may use of torch: types, and operations that can be written down."""

    def __init__(self, **operations: Any) -> None:
        found = {name: SimpleNamespace(default=operation) for name, operation in operations.items()}
        self.ops = SimpleNamespace(aten=SimpleNamespace(**found))

    def __getattr__(self, name: str) -> Any:
        if not isinstance(value := getattr(torch, name), torch.dtype):
            raise AttributeError(name)
        return value


def _compile(source: str) -> Any:
    from torch._inductor.codecache import CppCodeCache, CppPythonBindingsCodeCache
    from torch._inductor.exc import CppCompileError

    class Loops(CppCodeCache):
        cache = _LOADED
        cpp_compile_command_flags = CppPythonBindingsCodeCache.cpp_compile_command_flags  # links nothing of torch

    try:
        return Loops.load(source, needs_vec_isa="at::vec::" in source, extra_flags=("-w",)).play
    except CppCompileError as error:
        raise Unplayable("its functions cannot be compiled together") from error


_LOADED: dict[str, Any] = {}
_PREFIX = "#include <torch/csrc/inductor/cpp_prefix.h>"
_LOOP = f"""
template <int64_t bytes>
static inline void fetch(void* batch, const char* data, const int64_t* index, int64_t size, bool more) {{
  for (int64_t i = 0; i < size; ++i) {{
    for (int64_t line = 0; more && line < bytes && line < {AHEAD}; line += 64)
      __builtin_prefetch(data + index[size + i] * bytes + line);
    memcpy((char*) batch + i * bytes, data + index[i] * bytes, bytes);
  }}
}}

extern "C" int play(
    int64_t steps, void* const* at, char* const* rows, const int64_t* index, number* losses, char* words) {{
  try {{
    for (int64_t t = 0; t < steps; ++t) {{
      BODY
    }}
    return 0;
  }} catch (const std::exception& error) {{
    strncpy(words, error.what(), {WORDS - 1});
    return 1;
  }}
}}
"""
