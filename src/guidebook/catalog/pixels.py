"""Grey levels made black and white, for models of binary images."""

from typing import Literal

from torch import Tensor

from guidebook.models import vae


def black_and_white(model: str, x: Tensor, how: Literal["threshold", "fixed"], top: float) -> Tensor:
    """Return zeros and ones from intensities of 0 to ``top``; a ValueError of the model says if some are outside."""
    if float(x.min()) < 0:
        raise ValueError(f"{model}: it takes intensities from 0 up, and the lowest is {float(x.min()):g}")
    if float(x.max()) > top:
        raise ValueError(f"{model}: the fit had intensities up to {top:g}, and these go up to {float(x.max()):g}")
    return vae.binarise(x / top if top > 0 else x, how)
