"""Commands in several processes that ``torchrun`` started: which of them this is, and the group that they train in."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets


def is_one_of_several() -> bool:
    """Whether this process was started as one of several."""
    return all(os.environ.get(name) for name in VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def is_first() -> bool:
    """Whether this process prints and writes: the first of several, or the only one."""
    return not is_one_of_several() or int(os.environ["RANK"]) == 0


def check_alone(what: str) -> None:
    """Raise ValueError if this is one of several processes, of which each would do the same work."""
    if is_one_of_several():
        raise ValueError(f"{what} runs in one process: torchrun is for `guidebook run --method svi`")


@contextmanager
def process_group(device: str | None) -> Iterator[None]:
    """Have the processes train together in a block, by NCCL on GPUs, each on its own, else by gloo.

    A ValueError says if ``device`` is one GPU, which all would share.
    """
    if not is_one_of_several():
        yield
        return
    import torch  # slow to import

    if not is_first():
        warnings.filterwarnings("ignore", category=UserWarning)
    on_gpu = (device or "cpu").startswith("cuda")
    if on_gpu and device != "cuda":
        raise ValueError(f"run: each of several processes takes its own GPU: give --device cuda, not {device}")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        os.environ.setdefault("TORCH_NCCL_BLOCKING_WAIT", "1")  # a lost rank is an error here; else NCCL kills this one
    torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield
    except BaseException:
        if not on_gpu:  # NCCL would wait for the others, which may have ended; it aborts when this process ends
            torch.distributed.destroy_process_group()
        raise
    torch.distributed.destroy_process_group()
