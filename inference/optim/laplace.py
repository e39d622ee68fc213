"""Laplace's approximation: a normal at the mode, with the covariance given by the log density's curvature there."""

from collections.abc import Iterable

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal
from torch import Tensor

from ..traces.log_joint import LogJoint, Sites
from ..traces.sites import Scale, is_latent, nodes

HESSIAN_ROWS = 64  # computed in one backward pass


def laplace_normal(
    guide: AutoLaplaceApproximation, joint: LogJoint, rows: tuple[Scale, Iterable[tuple]] | None = None
) -> AutoMultivariateNormal:
    """Return the normal guide at the mode that ``guide`` has found, its precision minus the log joint's Hessian.

    The log joint has its discrete sites summed out. If its data are but some of the rows, ``rows`` are the handler of
    the sites that belong to them and all data, block after block.

    Bishop (2006), Pattern Recognition and Machine Learning, section 4.4, equations 4.131 to 4.134.
    """
    at_mode = poutine.trace(guide).get_trace(*joint.data)
    values = {name: site["value"] for name, site in nodes(at_mode).items() if is_latent(site)}
    values = {name: value for name, value in values.items() if name in joint.latent}
    change = torch.as_tensor(at_mode.log_prob_sum())
    if rows is None:
        precision = hessian(change - joint(values), guide.loc)
    else:
        prior = _beside(joint, values, rows[0])
        precision = hessian(change - prior, guide.loc)
        for block in rows[1]:
            with joint.on(dict(enumerate(block))):
                precision = precision - hessian(joint(values) - prior, guide.loc)
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


def _beside(joint: LogJoint, values: Sites, rows: Scale) -> Tensor:
    """Return the log density of the sites that do not belong to rows."""
    trace = joint.trace(values)
    trace.compute_log_prob()
    sites = (site for name, site in nodes(trace).items() if name not in joint.summed and "log_prob_sum" in site)
    return sum((site["log_prob_sum"] for site in sites if not rows.chosen(site)), torch.zeros(()))


def hessian(value: Tensor, at: Tensor) -> Tensor:
    """Return the second derivatives of a scalar with respect to a vector, (d, d), many rows per backward pass."""
    flat = at.new_zeros(len(at), len(at))
    if not value.requires_grad:
        return flat
    (gradient,) = torch.autograd.grad(value, at, create_graph=True)
    if not gradient.requires_grad:
        return flat
    blocks = []
    for rows in torch.eye(len(at), dtype=at.dtype, device=at.device).split(HESSIAN_ROWS):
        try:
            (block,) = torch.autograd.grad(gradient, at, rows, retain_graph=True, is_grads_batched=True)
        except RuntimeError:  # an operation that cannot be batched
            block = torch.stack([torch.autograd.grad(gradient, at, row, retain_graph=True)[0] for row in rows])
        blocks.append(block)
    return torch.cat(blocks)
