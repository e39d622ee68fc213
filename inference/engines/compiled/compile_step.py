"""A pure step and an optimiser's update as one step of machine code, compiled by Inductor.

The compiled code holds neither data nor seeds. It is kept in torch's cache on disk: the next fit of a model to data of
the same shape takes it from there.
"""

import shutil
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from types import ModuleType

import joblib
import torch
from joblib import Parallel, delayed
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from ...optim.rules import Rule
from ...streams.order import RowIndex, gather
from ..graph import CannotCompile
from ..record import record
from .build import COMPILERS
from .cpp_loop import CppCalls, CppLoop
from .cuda_loop import CudaGraphLoop
from .functionalise import PureStep, close, sample_noise
from .inductor import compile_graph, kernels_of, trust_cpuid
from .lower import Lowered
from .small_matrices import Unsupported

aten = torch.ops.aten
SMALL = 4096  # numbers in a step's largest tensor; vector instructions cost more than they save below


class PythonLoop:
    """Take steps in a row, one call each: for a step that neither a C++ loop nor a CUDA graph can take."""

    def __init__(self, step: Callable, inputs: Sequence[Tensor], states: int, streams: Sequence[int]) -> None:
        self.state = list(inputs[:states])
        self._step, self._inputs, self._streams = step, list(inputs), streams

    def run(self, streams: Sequence[Tensor | RowIndex]) -> Tensor:
        """Take one step per row of the streams; returns the losses (step,)."""
        losses = []
        for rows in zip(*map(gather, streams), strict=True):
            for position, row in zip(self._streams, rows, strict=True):
                self._inputs[position] = row
            loss, *self.state = self._step(*self.state, *self._inputs[len(self.state) :])
            losses.append(loss)
        return torch.stack(losses)


Loop = CppLoop | CudaGraphLoop | PythonLoop


def no_compiler() -> str:
    """Return why nothing can be compiled here, as a clause; empty if it can."""
    return "" if any(map(shutil.which, COMPILERS)) else "there is no C++ compiler (g++ or clang++)"


def compile_step(step: PureStep, rule: Rule, leaves: Sequence[Tensor], batch: Sequence[Tensor]) -> Loop:
    """Compile a step with the rule's update; ``batch`` holds examples of the data that change.

    The loop's state is (parameters (p,), average (p,), memory … (p,)), with all parameters in one vector. Its streams
    are (schedule, normal noise, uniform noise, changing data …). A row of the schedule is the rule's numbers, and the
    weight of the step's parameters in the average.
    """
    vector = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
    memory = [torch.zeros_like(vector) for _ in range(rule.states)]
    numbers = vector.new_ones(len(rule.numbers(1, 1.0)) + 1)
    numbers[0] = 0.0 if rule.states else 1e-3  # Adam's first step has the sign of a gradient that may be rounding error
    apart = vector + 0.01 * torch.linspace(-1, 1, len(vector)).to(vector)  # an optimum has gradients of rounding error
    examples = [apart, vector.clone(), *memory, numbers, *sample_noise(vector, step.noise), *batch, *step.constants]
    states = 2 + rule.states
    streams = range(states, states + 3 + len(batch))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        try:
            whole = _with_update(step, rule, leaves, examples)
            values = (node.meta.get("val") for node in step.graph.graph.nodes)
            largest = max(value.numel() for value in [*values, *step.constants] if isinstance(value, Tensor))
            with torch.random.fork_rng():  # draws that are no input, such as gamma variates
                expected = whole(*examples)
            first = [examples[position].unsqueeze(0) for position in streams[:3]]
            every = [RowIndex(rows, torch.arange(len(rows), device=rows.device)[None]) for rows in batch]
            for make in (_lowered, partial(_by_inductor, scalar=largest < SMALL)):
                loop = make(whole, examples, states, streams, len(batch))
                if loop is None:
                    continue
                loss = loop.run([*first, *every])
                if all(close(a, b) for a, b in zip(expected, [loss.squeeze(0), *loop.state], strict=True)):
                    break
            else:
                raise CannotCompile("the compiled step disagrees with the recorded one")
        except CannotCompile:
            raise
        except Exception as error:  # user models, and releases of torch, can fail in any way; fall back to eager
            detail = (str(error).strip().splitlines() or [""])[0][:200]
            raise CannotCompile(f"torch cannot compile it: {type(error).__name__}: {detail}") from None
        for value, start in zip(loop.state, [vector, vector, *memory], strict=True):
            value.copy_(start)
    return loop


def _lowered(
    whole: GraphModule, inputs: list[Tensor], states: int, streams: Sequence[int], picked: int
) -> CppLoop | None:
    """Return a loop of C++ of our own; None if it does not know an operation, or if another way is faster."""
    if inputs[0].is_cuda:
        return None
    try:
        with torch.random.fork_rng():
            return CppLoop(partial(Lowered, whole, changing=streams[-1] + 1), inputs, states, streams, picked)
    except Unsupported:
        return None


def _by_inductor(
    whole: GraphModule, inputs: list[Tensor], states: int, streams: Sequence[int], picked: int, *, scalar: bool
) -> Loop:
    """Return the fastest loop of what Inductor makes of a graph."""
    with trust_cpuid():
        run, program = compile_graph(whole, inputs, scalar=scalar)
        return _loop(run, program, inputs, states, streams, picked)


def _with_update(step: PureStep, rule: Rule, leaves: Sequence[Tensor], inputs: Sequence[Tensor]) -> GraphModule:
    """Return the graph of (inputs …) → (loss, state …)."""

    def update(parameters: Tensor, average: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        *memory, numbers, grad = rest
        parameters, memory = rule.update(parameters, grad, memory, numbers)
        return parameters, average + numbers[-1] * (parameters - average), *memory

    graph, ends = Graph(), list(accumulate(leaf.numel() for leaf in leaves))
    nodes = [graph.placeholder(f"input_{position}") for position in range(len(inputs))]
    before, (normal, uniform), rest = nodes[: 3 + rule.states], nodes[3 + rule.states :][:2], nodes[5 + rule.states :]
    values = []
    for start, end, leaf in zip([0, *ends], ends, leaves, strict=False):
        part = graph.call_function(aten.slice.Tensor, (nodes[0], 0, start, end))
        values.append(graph.call_function(aten.reshape.default, (part, list(leaf.shape))))
    changing = len(rest) - len(step.constants)
    loss, *grads = _inlined(step.graph, graph, [*values, *rest[:changing], normal, uniform, *rest[changing:]])
    flat = [graph.call_function(aten.reshape.default, (grad, [-1])) for grad in grads]
    grad = graph.call_function(aten.cat.default, (flat,))
    recorded = record(update, [*inputs[: len(before)], inputs[0]]).module()
    after = _inlined(recorded, graph, [*before, grad])
    graph.output((graph.call_function(aten.reshape.default, (loss, [])), *after))
    return GraphModule(torch.nn.Module(), graph)


def _inlined(module: GraphModule, graph: Graph, inputs: Sequence[Node]) -> Sequence[Node]:
    """Copy a graph to the end of another; returns its results there."""
    placeholders = (node for node in module.graph.nodes if node.op == "placeholder")
    return graph.graph_copy(module.graph, dict(zip(placeholders, inputs, strict=True)))  # pyright: ignore


def _loop(
    run: Callable, program: ModuleType | None, inputs: list[Tensor], states: int, streams: Sequence[int], picked: int
) -> Loop:
    """Return the fastest loop that can run the program."""
    if inputs[0].is_cuda:
        with suppress(RuntimeError):
            return CudaGraphLoop(run, inputs, states, streams)
    elif program is not None:
        try:
            return CppLoop(partial(CppCalls, program), inputs, states, streams, picked)
        except Unsupported:
            kernels = kernels_of(program).values()
            Parallel(joblib.cpu_count(), prefer="threads")(delayed(getattr)(kernel, "function") for kernel in kernels)
    return PythonLoop(run, inputs, states, streams)
