"""Compiled steps on a CPU in a C++ loop, without Python between them.

A step is C++ of our own (`Lowered`), or a program of Inductor's, which always makes the same calls on the same buffers:
`CppCalls` records them once. The loop around it reads noise in place, prefetches the next batch and carries the state.
"""

import ctypes
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ...streams.order import RowIndex, gather
from . import small_matrices
from .inductor import PREFIX, Kernel, call_with, kernels_of, load_cpp
from .lower import Lowered
from .small_matrices import Unsupported

MAX_PREFETCH = 256  # bytes of a row of the next step's batch that are prefetched
MESSAGE_SIZE = 200  # bytes of an error message
NUMBERS = {torch.float32: "float", torch.float64: "double"}


class CppLoop:
    """Take steps in a row; `Unsupported` if a step does more than ``calls_of`` knows how to do in C++.

    That gets inputs and streams, and returns `CppCalls` or `Lowered`. The first ``states`` of the ``inputs`` are the
    state, which a step returns after its loss. Those at the positions in ``streams``, next to them, change from step to
    step; the last ``picked`` of these are batches of rows.
    """

    def __init__(
        self,
        calls_of: Callable[[Sequence[Tensor], Sequence[Tensor]], "CppCalls | Lowered"],
        inputs: Sequence[Tensor],
        states: int,
        streams: Sequence[int],
        picked: int,
    ) -> None:
        self._number = inputs[0].dtype
        if self._number not in NUMBERS:
            raise Unsupported(f"it computes in {self._number}")
        end = streams[-1] + 1
        self._inputs = [*(value.clone() for value in inputs[:end]), *inputs[end:]]  # the loop writes to the clones
        self.state = self._inputs[:states]
        split = len(streams) - picked
        self._calls = calls = calls_of(self._inputs, [self._inputs[position] for position in streams[:split]])
        loss, *after = calls.results
        if any(value.dtype != self._number for value in (loss, *after)):
            raise Unsupported("it has numbers of several types")
        if not all(value.is_contiguous() for value in after):
            raise Unsupported("its state is not contiguous")
        gaps = _gaps(calls.lines)
        lines = {gap: [line] for gap, line in enumerate(calls.lines)}
        fetched = []
        for stream, position in enumerate(streams[split:], split):
            batch = self._inputs[position]
            size = len(batch)
            row, at = f"{batch.nbytes // size}>", f"rows[{stream}], index + t * {size}"
            fetched.append(f"fetch<{row}({calls.place(batch)}, {at}, {size});")
            for part, gap in enumerate(gaps):
                first, last = (size * end // len(gaps) for end in (part, part + 1))
                if first < last:
                    lines[gap].insert(0, f"if (t + 1 < steps) expect<{row}({at} + {size + first}, {last - first});")
        lines = [*fetched, *chain(*lines.values()), f"losses[t] = *(number*) {calls.place(loss)};"]
        for old, new in zip(self.state, after, strict=True):
            lines.append(f"memcpy({calls.place(old)}, {calls.place(new)}, {new.nbytes});")
        number = f"typedef {NUMBERS[self._number]} number;"
        loop = _LOOP.replace("BODY", "\n    ".join([*calls.declarations, *lines]))
        try:
            library = calls.library(number, loop)
        except (RuntimeError, ImportError, AttributeError) as error:  # the compiler's, or of a name that has moved
            raise Unsupported("its kernels cannot be compiled together") from error
        self._run = library.run
        self._addresses = (ctypes.c_void_p * len(calls.addresses))(*calls.addresses)

    def run(self, streams: Sequence[Tensor | RowIndex]) -> Tensor:
        """Take one step per row of the streams, contiguous and shaped (step, …); returns the losses (step,)."""
        plain = [value for value in streams if isinstance(value, Tensor)]
        picked = [value for value in streams if isinstance(value, RowIndex)]
        if not all(value.data.is_contiguous() for value in picked):
            index = torch.arange(picked[0].rows.numel()).view_as(picked[0].rows)
            picked = [RowIndex(gather(value).flatten(0, 1), index) for value in picked]
        index = picked[0].rows.contiguous() if picked else torch.empty(0, dtype=torch.long)
        places = [value.data_ptr() for value in (*plain, *(value.data for value in picked))]
        rows = (ctypes.c_void_p * len(places))(*places)
        losses, message = torch.empty(len(plain[0]), dtype=self._number), ctypes.create_string_buffer(MESSAGE_SIZE)
        pointers = [self._addresses, rows, *(ctypes.c_void_p(value.data_ptr()) for value in (index, losses))]
        if self._run(ctypes.c_int64(len(losses)), *pointers, message):
            raise RuntimeError(message.value.decode(errors="replace"))
        return losses


class CppCalls:
    """Run a program once, and record its calls of kernels and its products of small matrices.

    ``streams`` are those inputs that step ``t`` reads from row ``t`` of an array. In the lines, ``at[i]`` is address
    ``i`` of `addresses` and ``rows[i]`` the array of stream ``i``; `results` are the tensors that the program returned.
    """

    def __init__(self, program: ModuleType, inputs: Sequence[Tensor], streams: Sequence[Tensor]) -> None:
        self.lines: list[str] = []
        self.declarations: list[str] = []
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

    def library(self, number: str, loop: str) -> Any:
        """Compile a loop that has the lines; returns a library with its function ``run``."""
        return load_cpp("\n".join([PREFIX, number, small_matrices.SOURCE, *self.kernels, loop, _GUARDED]))

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


def _gaps(lines: Sequence[str]) -> list[int]:
    """Return the lines before which another can be put: those outside all braces."""
    depth = accumulate((line.count("{") - line.count("}") for line in lines), initial=0)
    return [gap for gap, inside in zip(range(len(lines)), depth, strict=False) if not inside]


_LOOP = f"""
template <int64_t bytes>
static inline void fetch(void* batch, const char* data, const int64_t* index, int64_t size) {{
  for (int64_t i = 0; i < size; ++i)
    memcpy((char*) batch + i * bytes, data + index[i] * bytes, bytes);
}}

template <int64_t bytes>
static inline void expect(const char* data, const int64_t* index, int64_t size) {{
  for (int64_t i = 0; i < size; ++i)
    for (int64_t line = 0; line < bytes && line < {MAX_PREFETCH}; line += 64)
      __builtin_prefetch(data + index[i] * bytes + line);
}}

static void take(
    int64_t steps, void* const* at, char* const* rows, const int64_t* index, number* losses) {{
  for (int64_t t = 0; t < steps; ++t) {{
    BODY
  }}
}}
"""

# Inductor's kernels may throw.
_GUARDED = f"""
extern "C" int run(
    int64_t count, void* const* at, char* const* rows, const int64_t* index, number* losses, char* message) {{
  try {{
    take(count, at, rows, index, losses);
    return 0;
  }} catch (const std::exception& error) {{
    strncpy(message, error.what(), {MESSAGE_SIZE - 1});
    return 1;
  }}
}}
"""
