"""Where a fit of a model starts: worked out once for all sites, and only if a fit asks."""

import functools
from collections.abc import Callable, Mapping

from pyro.poutine.runtime import InferDict
from torch import Tensor

Start = Callable[[str], InferDict]


def init(values: Callable[[], Mapping[str, Tensor]] | None) -> Start:
    """Return a function from a site's name to its ``infer`` argument, which says where a fit may start.

    ``values``, ``() -> {site: value}``, is called at most once, when a fit first looks for a start, so it may be slow
    (k-means) and may draw random numbers. None, for a model without data, gives no start.
    """
    if values is None:
        return lambda site: {}
    known = functools.cache(values)
    return lambda site: {"init": lambda: known()[site]}  # pyright: ignore[reportReturnType] (a key of our own)
