"""A lean graph and an optimiser's update as one step, compiled to machine code by Inductor.

What is compiled holds neither data nor seeds, and is kept in torch's own cache on disk: the next fit of a model to
data of the same shape takes it from there.
"""

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate
from types import ModuleType
from typing import Any
from unittest.mock import patch

import joblib
import torch
from joblib import Parallel, delayed
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx

from ...optim.minibatch import Picked, gathered
from ..graph import CannotCompile
from .capture import Captured
from .optimisers import Rule
from .replay import Kernel, Player, Unplayable
from .tidy import Lean, close

aten = torch.ops.aten
SMALL = 4096  # numbers in the largest tensor of a step, below which vector instructions cost more than they save
SHARED = 16_384  # numbers a thread, below which a loop is not shared out: to wait for threads takes longer
COMPILERS = ("g++", "clang++", "c++")


class Caller:
    """Takes steps in a row, by a call each: for programs that can be neither played nor captured."""

    def __init__(self, run: Callable, inputs: Sequence[Tensor], states: int, streams: Sequence[int]) -> None:
        self.state = list(inputs[:states])
        self._run, self._inputs, self._streams = run, list(inputs), streams

    def play(self, streams: Sequence[Tensor | Picked]) -> Tensor:
        """As `Player.play`."""
        losses = []
        for rows in zip(*map(gathered, streams), strict=True):
            for position, row in zip(self._streams, rows, strict=True):
                self._inputs[position] = row
            loss, *self.state = self._run(*self.state, *self._inputs[len(self.state) :])
            losses.append(loss)
        return torch.stack(losses)


Steps = Player | Captured | Caller


def no_compiler() -> str:
    """Why nothing can be compiled here, as a clause; empty where it can."""
    return "" if any(map(shutil.which, COMPILERS)) else "there is no C++ compiler (g++ or clang++)"


def compiled(step: Lean, rule: Rule, leaves: Sequence[Tensor], batch: Sequence[Tensor]) -> Steps:
    """Compile a step.

    Parameters
    ----------
    step : Lean
    rule : Rule
    leaves : sequence of Tensor
        The unconstrained parameters.
    batch : sequence of Tensor
        Examples of the data that change.

    Returns
    -------
    Player, Captured or Caller
        Its state is (parameters (p,), average (p,), memory … (p,)), with all parameters in one vector and nothing done
        yet. Its streams are (schedule, normal noise, uniform noise, changing data …). A row of the schedule is the
        rule's numbers, and the weight of the step's parameters in the average.

    Raises
    ------
    CannotCompile
        If Inductor cannot.
    """
    vector = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
    memory = [torch.zeros_like(vector) for _ in range(rule.states)]
    numbers = vector.new_ones(len(rule.numbers(1, 1.0)) + 1)
    numbers[0] = 0.0 if rule.states else 1e-3  # Adam's first step has the sign of a gradient that may be rounding error
    generator = torch.Generator(vector.device).manual_seed(0)
    noise = [vector.new_empty(size) for size in step.noise]
    noise[0].normal_(generator=generator)
    noise[1].uniform_(generator=generator)
    examples = [vector, vector.clone(), *memory, numbers, *noise, *batch, *step.constants]
    states = 2 + rule.states
    streams = range(states, states + 3 + len(batch))
    with torch.no_grad(), _taking_the_processors_word():
        whole = _with_update(step, rule, leaves, examples)
        values = (node.meta.get("val") for node in step.graph.graph.nodes)
        largest = max(value.numel() for value in [*values, *step.constants] if isinstance(value, Tensor))
        with torch.random.fork_rng():  # for what noise from outside cannot stand for, such as gamma draws
            expected = whole(*examples)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                run, program = _inductor(whole, examples, scalar=largest < SMALL)
                steps = _in_a_row(run, program, examples, states, streams, len(batch))
                first = [examples[position].unsqueeze(0) for position in streams[:3]]
                loss = steps.play(
                    [*first, *(Picked(rows, torch.arange(len(rows), device=rows.device)[None]) for rows in batch)]
                )
        except Exception as error:  # a compiler's complaint about a stranger's model: the eager step still serves
            raise CannotCompile(f"it cannot be compiled: {str(error).strip().splitlines()[0][:200]}") from None
        if not all(close(a, b) for a, b in zip(expected, [loss.squeeze(0), *steps.state], strict=True)):
            raise CannotCompile("compiled, it does not give what it gives step by step")
        for value, first in zip(steps.state, examples[:states], strict=True):
            value.copy_(first)
    return steps


def _with_update(step: Lean, rule: Rule, leaves: Sequence[Tensor], inputs: Sequence[Tensor]) -> GraphModule:
    """The graph of (inputs …) → (loss, state …): what `compiled` compiles."""

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
    after = _inlined(make_fx(update)(*inputs[: len(before)], inputs[0].clone()), graph, [*before, grad])
    graph.output((graph.call_function(aten.reshape.default, (loss, [])), *after))
    return GraphModule(torch.nn.Module(), graph)


def _inlined(module: GraphModule, graph: Graph, inputs: Sequence[Node]) -> Sequence[Node]:
    """Copy a graph to the end of another one; returns its results there."""
    placeholders = (node for node in module.graph.nodes if node.op == "placeholder")
    return graph.graph_copy(module.graph, dict(zip(placeholders, inputs, strict=True)))  # pyright: ignore


def _in_a_row(
    run: Callable, program: ModuleType | None, inputs: list[Tensor], states: int, streams: Sequence[int], picked: int
) -> Steps:
    if inputs[0].is_cuda:
        with suppress(RuntimeError):
            return Captured(run, inputs, states, streams)
    elif program is not None:
        try:
            return Player(program, inputs, states, streams, picked)
        except Unplayable:
            kernels = [value for value in vars(program).values() if isinstance(value, Kernel)]
            Parallel(joblib.cpu_count(), prefer="threads")(delayed(getattr)(kernel, "function") for kernel in kernels)
    return Caller(run, inputs, states, streams)


def _inductor(graph: GraphModule, examples: list[Any], *, scalar: bool) -> tuple[Callable[..., Any], ModuleType | None]:
    """The compiled graph, and the module that Inductor wrote for it, new or from its cache."""
    from torch._inductor import config, standalone_compile
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.codecache import PyCodeCache

    modules, load = [], PyCodeCache.load_by_key_path

    def listening(*args: Any, **kwargs: Any) -> ModuleType:
        modules.append(load(*args, **kwargs))
        return modules[-1]

    options = {"fallback_random": True, "cpp.min_chunk_size": SHARED}
    with (
        config.patch(options | ({"cpp.simdlen": 1} if scalar else {})),
        patch.object(PyCodeCache, "load_by_key_path", listening),
        patch.object(AsyncCompile, "cpp_pybinding", lambda _, kinds, code: Kernel(kinds, code)),
    ):
        run = standalone_compile(graph, examples, dynamic_shapes="from_example_inputs")
    return run, modules[0] if len(modules) == 1 else None


@contextmanager
def _taking_the_processors_word() -> Iterator[None]:
    """Inductor believes what the processor says of its vector instructions; trying them out takes it seconds."""
    from torch._inductor import config

    with config.patch(compile_threads=1):
        from torch._inductor import async_compile, cpu_vec_isa  # noqa: F401 (else it would start processes for the compiler)

    if not torch.cpu._is_avx2_supported():
        yield
        return
    base = cpu_vec_isa.VecAVX512 if torch.cpu._is_avx512_supported() else cpu_vec_isa.VecAVX2
    known = type("Known", (base,), {"__bool__": lambda self: True})()
    with patch.object(cpu_vec_isa, "valid_vec_isa_list", lambda: [known]):
        yield
