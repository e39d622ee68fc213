"""A lean graph and an optimiser's update, several steps of it in a row, compiled to machine code by Inductor.

What is compiled holds neither data nor seeds, and is kept in torch's own cache on disk: the next fit of a model to
data of the same shape takes it from there.
"""

import platform
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import joblib
import torch
from torch import Tensor
from torch.fx import Interpreter
from torch.fx.experimental.proxy_tensor import make_fx

from ..graph import Untraceable
from .optimisers import Rule
from .tidy import Lean, close

SMALL = 4096  # numbers in the largest tensor of a step, below which vector instructions cost more than they save
COMPILERS = ("g++", "clang++", "c++")


def no_compiler() -> str:
    """Why nothing can be compiled here, as a clause; empty where it can."""
    return "" if any(map(shutil.which, COMPILERS)) else "there is no C++ compiler (g++ or clang++)"


def compiled(
    step: Lean, rule: Rule, leaves: Sequence[Tensor], batch: Sequence[Tensor], unroll: int
) -> Callable[..., tuple[Tensor, ...]]:
    """Compile ``unroll`` steps.

    Parameters
    ----------
    step : Lean
    rule : Rule
    leaves : sequence of Tensor
        Examples of the unconstrained parameters.
    batch : sequence of Tensor
        Examples of the data that change; those of all steps follow one another.
    unroll : int

    Returns
    -------
    callable
        (parameters (p,), average (p,), memory … (p,), schedule (unroll, columns), normal and uniform noise
        (unroll, …), constants …, changing data …) → (losses (unroll,), parameters, average, memory …), with all
        parameters in one vector. A row of the schedule is the rule's numbers, and the weight of the step's parameters
        in the average.

    Raises
    ------
    Untraceable
        If Inductor cannot.
    """
    shapes = [leaf.shape for leaf in leaves]
    sizes = [leaf.numel() for leaf in leaves]
    interpreter = Interpreter(step.graph)
    num_constants, num_changing = len(step.constants), len(batch) // unroll

    def steps(parameters: Tensor, average: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        memory = list(rest[: rule.states])
        schedule, normal, uniform = rest[rule.states : rule.states + 3]
        constants = rest[rule.states + 3 : rule.states + 3 + num_constants]
        changing = rest[rule.states + 3 + num_constants :]
        losses = []
        for i in range(unroll):
            values = [part.view(shape) for part, shape in zip(parameters.split(sizes), shapes, strict=True)]
            rows = changing[i * num_changing : (i + 1) * num_changing]
            inputs = (*values, *rows, normal[i], uniform[i], *constants)
            loss, *grads = interpreter.run(*inputs, enable_io_processing=False)
            grad = torch.cat([g.reshape(-1) for g in grads])
            parameters, memory = rule.update(parameters, grad, memory, schedule[i])
            average = average + schedule[i, -1] * (parameters - average)
            losses.append(loss.reshape(()))
        return torch.stack(losses), parameters, average, *memory

    vector = torch.cat([leaf.detach().reshape(-1) for leaf in leaves])
    memory = [torch.zeros_like(vector) for _ in range(rule.states)]
    plan = vector.new_ones(unroll, len(rule.numbers(1, 1.0)) + 1)
    plan[:, 0] = 0.0 if rule.states else 1e-3  # Adam's first step has the sign of a gradient that may be rounding error
    generator = torch.Generator(vector.device).manual_seed(0)
    noise = [vector.new_empty(unroll, size) for size in step.noise]
    noise[0].normal_(generator=generator)
    noise[1].uniform_(generator=generator)
    examples = [vector, vector.clone(), *memory, plan, *noise, *step.constants, *batch]
    with torch.no_grad():
        graph = make_fx(steps)(*examples)
        with torch.random.fork_rng():  # for what noise from outside cannot stand for, such as gamma draws
            expected = graph(*examples)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch about itself
                run = _inductor(graph, examples)
            found = run(*examples)
        except Exception as error:  # a compiler's complaint about a stranger's model: the eager step still serves
            raise Untraceable(f"it cannot be compiled: {str(error).strip().splitlines()[0][:200]}") from None
    if not all(close(a, b) for a, b in zip(expected, found, strict=True)):
        raise Untraceable("compiled, it does not give what it gives step by step")
    return run


def _inductor(graph: torch.fx.GraphModule, examples: list[Any]) -> Callable[..., Any]:
    from torch._inductor import config

    with config.patch(compile_threads=1):
        from torch._inductor import (
            async_compile,  # noqa: F401 (else it would start processes for the compiler)
            standalone_compile,
        )

    options: dict[str, Any] = {"fallback_random": True, "compile_threads": joblib.cpu_count()}
    if platform.machine() in ("x86_64", "AMD64"):
        options["cpp.vec_isa_ok"] = True  # trying the instruction sets out takes longer than the compilation
        values = (node.meta.get("val") for node in graph.graph.nodes)
        if max(value.numel() for value in values if isinstance(value, Tensor)) < SMALL:
            options["cpp.simdlen"] = 1
    with config.patch(options):
        return standalone_compile(graph, examples, dynamic_shapes="from_example_inputs")
