"""A potential's gradient, and products with its Hessian, at many points at once in compiled code."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

from ..graph import functional
from .numpyro_private import compile_fast
from .program import as_jax
from .sampler import setting
from .translate import knows


def compile_batched(potential: Callable[[Tensor], Tensor], at: Tensor) -> Callable[..., tuple[Tensor, ...]]:
    """Return a function of points (n, d) that gives energies (n) and gradients (n, d).

    With directions (n, d) as a second argument it gives the Hessian at each point times its direction. It compiles
    anew for every n. `CannotCompile` if an operation has no translation.
    """
    translation, constants = as_jax(functional(potential, at, knows))
    compiled: dict[tuple[int, ...], Any] = {}

    def gradients(points: Any, *given: Any) -> Any:
        return jax.vmap(lambda point: jax.value_and_grad(translation)(point, *given))(points)

    def products(points: Any, directions: Any, *given: Any) -> Any:
        def product(point: Any, direction: Any) -> Any:
            return jax.jvp(jax.grad(lambda at: translation(at, *given)), (point,), (direction,))[1]

        return (jax.vmap(product)(points, directions),)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        arrays, key = [value.numpy() for value in inputs], (len(inputs), len(inputs[0]))
        with setting(arrays[0].dtype, "cpu"):
            if key not in compiled:
                function = gradients if len(inputs) == 1 else products
                compiled[key] = compile_fast(jax.jit(function).lower(*arrays, *constants))
            return tuple(torch.from_numpy(np.array(value)) for value in compiled[key](*arrays, *constants))

    return run
