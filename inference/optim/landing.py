"""The ELBO by a batch of draws, its gradient by sticking the landing: without noise where the guide is exact.

The gradient goes through the draws alone. Its other term, the score of log q at fixed draws, is zero on average and is
left out. The model is evaluated at all draws at once, by ``torch.vmap`` where that works.

Roeder, Wu and Duvenaud (2017), Sticking the landing: simple, lower-variance gradient estimators for variational
inference, NeurIPS, equation 6; Agrawal and Domke (2024), Disentangling impact of capacity, objective, batchsize,
estimators, and step-size on flow VI, arXiv 2412.08824, section 5.
"""

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from torch import Tensor

from ..traces.sites import is_delta, is_latent, is_plate, nodes, plate_depth
from ..traces.vmap import map_rows

MAX_RELATIVE = 10.0  # norm of a draw's gradient, relative to the geometric mean of all draws': more is cut off
TINY = 1e-30  # keeps a gradient of zero from having a logarithm of minus infinity


class StickingElbo(Trace_ELBO):
    """Loss for guides whose sites are reparameterised; points among them, and the model's parameters, get theirs too.

    A draw's gradient is clipped to `MAX_RELATIVE` times the typical norm, since a few draws in a tail would undo the
    steps of many.
    """

    def loss(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> float:
        """Return the loss alone, in nats."""
        with torch.no_grad():
            return float(self._terms(model, guide, args, kwargs)[0])

    def loss_and_grads(self, model: Callable, guide: Callable, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss; add its gradient to ``.grad`` of every parameter."""
        log_p, log_q, drawn, leaves = self._terms(model, guide, args, kwargs)
        if not leaves:
            raise ValueError('the loss "sticking" needs a guide that draws, and this one is a point')
        (-log_p.mean()).backward(retain_graph=True)  # what the guide computes from its draws enters both terms
        of_log_q = torch.autograd.grad(log_q.mean(), leaves)
        grads = [g if leaf.grad is None else leaf.grad + g for leaf, g in zip(leaves, of_log_q, strict=True)]
        torch.autograd.backward(drawn, _clipped(grads) if self.num_particles > 1 else grads)
        return (log_q - log_p).mean().detach()

    def _terms(
        self, model: Callable, guide: Callable, args: tuple, kwargs: dict
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """Return log p and log q, (draw,); what the guide drew, and the same values as leaves that both depend on."""
        count = self.num_particles
        with poutine.block():
            single = poutine.trace(guide).get_trace(*args, **kwargs)
        dim = -1 - plate_depth(single)

        def many(*args: Any, **kwargs: Any) -> Any:
            with pyro.plate("draws of the guide", count, dim=dim):
                return guide(*args, **kwargs)

        drawer = many if count > 1 else guide
        first = nodes(poutine.trace(drawer).get_trace(*args, **kwargs))
        names = [n for n, s in first.items() if s["type"] == "sample" and not is_plate(s) and not is_delta(s["fn"])]
        drawn = [first[name]["value"] for name in names]
        leaves = [value.detach().requires_grad_() for value in drawn]
        given = dict(zip(names, leaves, strict=True))
        trace = poutine.trace(poutine.condition(drawer, data=given)).get_trace(*args, **kwargs)
        trace.compute_log_prob()
        sites = {n: s for n, s in nodes(trace).items() if s["type"] == "sample" and not is_plate(s)}
        log_q = torch.as_tensor(sum(_per_draw(site["log_prob"], count) for site in sites.values()))
        shapes = {name: site["value"].shape for name, site in nodes(single).items() if is_latent(site)}
        values = {name: sites[name]["value"].reshape(count, *shape) for name, shape in shapes.items()}

        def log_joint(draw: dict[str, Tensor]) -> Tensor:
            trace = poutine.trace(poutine.condition(model, data=draw)).get_trace(*args, **kwargs)
            return torch.as_tensor(trace.log_prob_sum())

        log_p = map_rows(log_joint, values) if count > 1 else log_joint({n: v[0] for n, v in values.items()})[None]
        return log_p, log_q, drawn, leaves


def _per_draw(terms: Tensor, count: int) -> Tensor:
    if count == 1:
        return terms.sum().reshape(1)
    return terms.expand(count, *terms.shape[1:]).reshape(count, -1).sum(-1)


def _clipped(grads: list[Tensor]) -> list[Tensor]:
    """Clip gradients, (draw, …) each, by the norm of a draw's over all of them."""
    count = len(grads[0])
    squares = torch.stack([grad.reshape(count, -1).square().sum(-1) for grad in grads]).sum(0)
    limit = 2 * torch.log(torch.tensor(MAX_RELATIVE)).item() + (squares + TINY).log().mean()
    factor = (0.5 * (limit - (squares + TINY).log())).clamp(max=0).exp()
    return [grad * factor.reshape(-1, *[1] * (grad.dim() - 1)) for grad in grads]
