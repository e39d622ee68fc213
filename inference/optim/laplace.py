"""Laplace's approximation: a normal at the mode, with the covariance given by the log density's curvature there."""

import torch
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from torch import Tensor

from ..traces.params import trace_pair

HESSIAN_ROWS = 64  # computed in one backward pass


def laplace_normal(guide: AutoLaplaceApproximation, data: tuple) -> AutoMultivariateNormal:
    """Return the normal guide at the mode that ``guide`` has found, its precision minus the log joint's Hessian.

    Bishop (2006), Pattern Recognition and Machine Learning, section 4.4, equations 4.131 to 4.134.
    """
    at_mode, model = trace_pair(guide.model, guide, data)
    precision = hessian(torch.as_tensor(at_mode.log_prob_sum() - model.log_prob_sum()), guide.loc)
    with torch.no_grad():
        try:
            covariance = precision.inverse()
            scale = covariance.diagonal().sqrt()
            root = torch.linalg.cholesky(covariance / scale.unsqueeze(-1) / scale)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            raise ArithmeticError(
                "svi: Laplace's approximation needs a mode, and the density still rises from the point reached: "
                "take more steps"
            ) from None
    normal = AutoMultivariateNormal(guide.model)
    normal._setup_prototype(*data)
    for name, value in (("loc", guide.loc.detach()), ("scale", scale), ("scale_tril", root)):
        delattr(normal, name)
        normal.register_buffer(name, value)
    return normal


def hessian(value: Tensor, at: Tensor) -> Tensor:
    """Return the second derivatives of a scalar with respect to a vector, (d, d), many rows per backward pass."""
    (gradient,) = torch.autograd.grad(value, at, create_graph=True)
    blocks = []
    for rows in torch.eye(len(at), dtype=at.dtype, device=at.device).split(HESSIAN_ROWS):
        try:
            (block,) = torch.autograd.grad(gradient, at, rows, retain_graph=True, is_grads_batched=True)
        except RuntimeError:  # an operation that cannot be batched
            block = torch.stack([torch.autograd.grad(gradient, at, row, retain_graph=True)[0] for row in rows])
        blocks.append(block)
    return torch.cat(blocks)
