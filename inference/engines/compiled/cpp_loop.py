"""Compiled steps on a CPU in a C++ loop, without Python between them.

Inductor's program always makes the same calls on the same buffers. Record them once and emit a C++ loop: noise is read
in place, the next batch is prefetched, state is carried over.
"""

import ctypes
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from ...optim.minibatch import RowIndex, gather
from . import small_matrices
from .cpp_calls import CppCalls
from .inductor import PREFIX, load_cpp
from .small_matrices import Unsupported

MAX_PREFETCH = 256  # bytes of a row of the next step's batch that are prefetched
MESSAGE_SIZE = 200  # bytes of an error message
NUMBERS = {torch.float32: "float", torch.float64: "double"}


class CppLoop:
    """Take steps in a row.

    Parameters
    ----------
    program : ModuleType
        The compiled step, as `inductor.compile_graph` returns it.
    inputs : sequence of Tensor
        Its arguments: the state, then the rest.
    states : int
        How many of the arguments are the state, which a step returns after its loss.
    streams : sequence of int
        Positions of the arguments that change from step to step; these follow the state.
    picked : int
        How many of these, at the end, are batches of rows.

    Raises
    ------
    Unsupported
        If the program does more than call kernels and multiply small matrices.
    """

    def __init__(
        self, program: ModuleType, inputs: Sequence[Tensor], states: int, streams: Sequence[int], picked: int
    ) -> None:
        self._number = inputs[0].dtype
        if self._number not in NUMBERS:
            raise Unsupported(f"it computes in {self._number}")
        end = streams[-1] + 1
        self._inputs = [*(value.clone() for value in inputs[:end]), *inputs[end:]]  # the loop writes to the clones
        self.state = self._inputs[:states]
        split = len(streams) - picked
        self._calls = calls = CppCalls(program, self._inputs, [self._inputs[position] for position in streams[:split]])
        loss, *after = calls.results
        if any(value.dtype != self._number for value in (loss, *after)):
            raise Unsupported("it has numbers of several types")
        if not all(value.is_contiguous() for value in after):
            raise Unsupported("its state is not contiguous")
        lines = []
        for stream, position in enumerate(streams[split:], split):
            batch = self._inputs[position]
            size = len(batch)
            row = f"{batch.nbytes // size}>({calls.place(batch)}, rows[{stream}]"
            lines.append(f"fetch<{row}, index + t * {size}, {size}, t + 1 < steps);")
        lines += [*calls.lines, f"losses[t] = *(number*) {calls.place(loss)};"]
        for old, new in zip(self.state, after, strict=True):
            lines.append(f"memcpy({calls.place(old)}, {calls.place(new)}, {new.nbytes});")
        number = f"typedef {NUMBERS[self._number]} number;"
        loop = _LOOP.replace("BODY", "\n      ".join(lines))
        try:
            library = load_cpp("\n".join([PREFIX, number, small_matrices.SOURCE, *calls.kernels, loop]))
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


_LOOP = f"""
template <int64_t bytes>
static inline void fetch(void* batch, const char* data, const int64_t* index, int64_t size, bool more) {{
  for (int64_t i = 0; i < size; ++i) {{
    for (int64_t line = 0; more && line < bytes && line < {MAX_PREFETCH}; line += 64)
      __builtin_prefetch(data + index[size + i] * bytes + line);
    memcpy((char*) batch + i * bytes, data + index[i] * bytes, bytes);
  }}
}}

extern "C" int run(
    int64_t steps, void* const* at, char* const* rows, const int64_t* index, number* losses, char* message) {{
  try {{
    for (int64_t t = 0; t < steps; ++t) {{
      BODY
    }}
    return 0;
  }} catch (const std::exception& error) {{
    strncpy(message, error.what(), {MESSAGE_SIZE - 1});
    return 1;
  }}
}}
"""
