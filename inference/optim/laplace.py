"""The normal of Laplace's method: mean at the mode, covariance from the curvature of the log density there."""

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from torch import Tensor

_ROWS = 64  # of the Hessian, worked out at once


def curved(guide: AutoLaplaceApproximation, data: tuple) -> AutoMultivariateNormal:
    """The guide whose curvature is that of the log joint density at the point that ``guide`` has reached.

    Parameters
    ----------
    guide : AutoLaplaceApproximation
        Fitted: its ``loc`` is the mode on the unconstrained scale.
    data : tuple
        Arguments of the model.

    Raises
    ------
    ArithmeticError
        If the density rises from the point in some direction, so that it is no mode.

    References
    ----------
    1. Bishop (2006), Pattern Recognition and Machine Learning, section 4.4, equations 4.131 to 4.134.
    """
    reached = poutine.trace(guide).get_trace(*data)
    model = poutine.trace(poutine.replay(guide.model, trace=reached)).get_trace(*data)
    negative = torch.as_tensor(reached.log_prob_sum() - model.log_prob_sum())
    precision = hessian(negative, guide.loc)
    with torch.no_grad():
        try:
            covariance = precision.inverse()
            scale = covariance.diagonal().sqrt()
            root = torch.linalg.cholesky(covariance / scale.unsqueeze(-1) / scale)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            raise ArithmeticError(
                "svi: Laplace's method needs a mode, and the density still rises from the point reached: "
                "take more steps"
            ) from None
    normal = AutoMultivariateNormal(guide.model)
    normal._setup_prototype(*data)
    for name, value in (("loc", guide.loc.detach()), ("scale", scale), ("scale_tril", root)):
        delattr(normal, name)
        normal.register_buffer(name, value)
    return normal


def hessian(value: Tensor, at: Tensor) -> Tensor:
    """Second derivatives of a scalar by a vector, (d, d), many rows in one backward pass."""
    (gradient,) = torch.autograd.grad(value, at, create_graph=True)
    found = []
    for rows in torch.eye(len(at), dtype=at.dtype, device=at.device).split(_ROWS):
        try:
            (part,) = torch.autograd.grad(gradient, at, rows, retain_graph=True, is_grads_batched=True)
        except RuntimeError:  # an operation that cannot be batched
            part = torch.stack([torch.autograd.grad(gradient, at, row, retain_graph=True)[0] for row in rows])
        found.append(part)
    return torch.cat(found)
