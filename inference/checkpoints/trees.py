"""States as trees of dicts, lists, tensors and numbers, taken apart into tensors and JSON and put together again."""

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

Tree = Any  # None, truth values, numbers, words, tensors, arrays, and dicts, lists and tuples of such


def take_apart(tree: Tree) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a tree by number, on the CPU, and JSON that says where they belong.

    TypeError for a value that no file can hold, such as a function.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Tree) -> Any:
        if isinstance(value, Tensor):
            core, sizes, strides = _as_laid_out(value.detach().cpu())
            tensors[str(len(tensors))] = core
            return {"tensor": len(tensors) - 1, "sizes": sizes, "strides": strides}
        if isinstance(value, np.ndarray):
            tensors[str(len(tensors))] = torch.from_numpy(np.array(value, order="C"))
            return {"array": len(tensors) - 1}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, dict):
            return {"dict": [[plain(key), plain(entry)] for key, entry in value.items()]}
        if isinstance(value, tuple | list):
            return {"tuple" if isinstance(value, tuple) else "list": [plain(entry) for entry in value]}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")

    return tensors, json.dumps(plain(tree))


def put_together(tensors: dict[str, Tensor], text: str) -> Tree:
    """Return the tree that `take_apart` took apart; named tuples come back as tuples."""

    def full(value: Any) -> Tree:
        if not isinstance(value, dict):
            return value
        if "tensor" in value:
            return _laid_out(tensors[str(value["tensor"])], value["sizes"], value["strides"])
        if "array" in value:
            return tensors[str(value["array"])].numpy()
        if "dict" in value:
            return {full(key): full(entry) for key, entry in value["dict"]}
        if "tuple" in value:
            return tuple(full(entry) for entry in value["tuple"])
        return [full(entry) for entry in value["list"]]

    return full(json.loads(text))


def moved_to(device: torch.device, tree: Tree) -> Tree:
    """Return a tree with its tensors on a device."""
    if isinstance(tree, Tensor):
        return tree.to(device)
    if isinstance(tree, dict):
        return {key: moved_to(device, value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        moved = [moved_to(device, value) for value in tree]
        return type(tree)(*moved) if hasattr(tree, "_fields") else type(tree)(moved)
    return tree


def _as_laid_out(value: Tensor) -> tuple[Tensor, list[int], list[int]]:
    """Return a contiguous copy of what a tensor holds, its sizes and its strides.

    The strides matter: products of matrices that are stored differently differ in their last digit.
    """
    sizes, strides = list(value.shape), list(value.stride())
    for dim, stride in enumerate(strides):
        if stride == 0 and sizes[dim] > 1:
            value = value.narrow(dim, 0, 1)
    return value.clone(memory_format=torch.contiguous_format), sizes, strides


def _laid_out(core: Tensor, sizes: list[int], strides: list[int]) -> Tensor:
    if list(core.shape) == sizes and list(core.stride()) == strides:
        return core
    held = [1 if stride == 0 else size for size, stride in zip(sizes, strides, strict=True)]
    made = torch.empty_strided(held, [stride or 1 for stride in strides], dtype=core.dtype)
    return made.copy_(core.reshape(held)).expand(sizes)
