"""What `online` returns of what has learned from batches."""

from typing import Any, NamedTuple

from torch import Tensor


class Learned(NamedTuple):
    """What batches have taught."""

    draws: dict[str, Tensor]  # (chain, draw, *site)
    params: dict[str, Tensor]
    info: dict[str, Any]  # fields of `OnlineInfo`
