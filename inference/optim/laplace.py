"""Laplace's approximation: a normal at the mode, with the covariance given by the log density's curvature there."""

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from torch import Tensor

from ..traces.log_joint import LogJoint
from ..traces.sites import is_latent, nodes

HESSIAN_ROWS = 64  # computed in one backward pass


def laplace_normal(guide: AutoLaplaceApproximation, joint: LogJoint) -> AutoMultivariateNormal:
    """Return the normal guide at the mode that ``guide`` has found, its precision minus the log joint's Hessian.

    The log joint has its discrete sites summed out.

    Bishop (2006), Pattern Recognition and Machine Learning, section 4.4, equations 4.131 to 4.134.
    """
    at_mode = poutine.trace(guide).get_trace(*joint.data)
    values = {name: site["value"] for name, site in nodes(at_mode).items() if is_latent(site)}
    values = {name: value for name, value in values.items() if name in joint.latent}
    precision = hessian(torch.as_tensor(at_mode.log_prob_sum() - joint(values)), guide.loc)
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
    normal._setup_prototype(*joint.data)
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
