"""A guide and a model that learn from batches by gradients of the ELBO, as `online` does.

Steps shrink as a power of their number, as Robbins and Monro ask, and are divided by a running root mean square of the
gradient, so that one size suits parameters of any scale: Kucukelbir, Tran, Ranganath, Gelman and Blei (2017), Automatic
differentiation variational inference, JMLR 18; here with Adam's momentum and bias correction (Kingma and
Ba 2015, Adam, ICLR, algorithm 1). The answer is an average of the iterates that weighs late ones more: Shamir and Zhang
(2013), Stochastic gradient descent for non-smooth optimization, ICML. All of this goes on from one fit to
the next.

Hoffman, Blei, Wang and Paisley (2013), Stochastic variational inference, JMLR 14: a batch stands for all
rows, each of its rows for N / B.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro.infer.autoguide import AutoGuide, AutoLaplaceApproximation
from torch import Tensor

from ..info import OnlineInfo
from ..options import positive
from ..posterior import Posterior
from ..streams import Stream
from ..traces.draws import draw_guide
from ..traces.errors import explained
from ..traces.guides import check_guide, clone_guide, display_name, family_guide, is_family, is_point, preferred_options
from ..traces.isolate import seed_all
from ..traces.params import (
    constrained_params,
    find_nonfinite,
    leaves_by_name,
    statement_params,
    trace_pair,
    unconstrained_params,
)
from ..traces.prepare import prepare
from ..traces.validation import unvalidated
from .bound import bound_of
from .kept import Leaves, Memory, Untrained
from .learned import Learned
from .losses import loss_and_grads, loss_for
from .minibatch import row_scale
from .rules import Optimiser, as_optim, not_compiled, optim_name, rule_of
from .sgd import Average
from .warm_start import Init, warm_start

LR = 0.75  # at the default offset, steps begin at .03, and are .004 after 2,000
OFFSET = 100.0
ETA = 3  # Shamir and Zhang's: the average weighs the iterate of step t by about t^ETA


class ByGradients:
    """Parameters of a guide and a model.

    Parameters
    ----------
    model, guide : callable
    rows : Stream
    num_rows : int
        N, of which ``rows`` may be a part.
    init : Posterior or dict of Tensor, optional
    batch_size : int
        B.
    seed, lr, optim, device
        As `online` takes them.

    Raises
    ------
    ValueError
        If an option is out of range, or model and guide cannot be run.
    """

    def __init__(
        self,
        model: Callable,
        guide: Callable,
        rows: Stream,
        num_rows: int,
        init: Init | None,
        *,
        batch_size: int,
        seed: int,
        lr: float | None,
        optim: Any,
        device: str | torch.device | None,
    ) -> None:
        lr = LR if lr is None else lr
        positive("online", lr=lr)
        with _named():
            check_guide(guide, model, "online")
            self._optim = as_optim("online", optim) or torch.optim.Adam
            rule = rule_of(self._optim)
        if rule is None:
            raise ValueError(f"online: {not_compiled(self._optim)}")
        self._rule, self._owner, self._given, self._init = rule, model, guide, init
        self._num_rows, self._batch_size, self._seed, self._lr = num_rows, batch_size, seed, lr
        self._guide: Any = None if is_family(guide) else clone_guide(guide)
        if device is not None and isinstance(self._guide, torch.nn.Module):
            self._guide = self._guide.to(device)
        how: dict[str, Any] = {"device": device, "exact": False, "in_blocks": True}
        by_hand = self._guide and clone_guide(self._guide)
        example = tuple(value[: 2 * batch_size] for value in rows.example(2 * batch_size))
        self._prepared = prepare("online", model, example, guide=by_hand, **how)

    @property
    def dtype(self) -> torch.dtype:
        """The default dtype during the fit."""
        return self._prepared.dtype

    @property
    def like(self) -> tuple:
        """Data whose dtypes and devices batches are to have."""
        return self._prepared.data

    def begin(self, batch: tuple) -> None:
        """Create the parameters from a batch, unless there is a fit to go on from."""
        prepared, joint = self._prepared, self._prepared.log_joint()
        with _named():
            if self._guide is None:
                self._guide = family_guide(self._given, prepared.model, joint)
                if isinstance(self._guide, torch.nn.Module):
                    self._guide = self._guide.to(self.like[0].device)
            if isinstance(self._guide, AutoLaplaceApproximation):
                raise ValueError("online: Laplace's approximation needs the Hessian of all rows: take mean_field, say")
            preferred = {} if joint.summed else preferred_options(self._given)
            loss, number = preferred.get("loss"), preferred.get("num_particles", 1)
            self._loss, model = loss_for(loss, number, joint, prepared.model, self._guide)
            is_auto = isinstance(self._guide, AutoGuide)
            with pyro.get_param_store().scope():  # parameters start by the batch, not by the example
                scale = row_scale(model, self.like, self._batch_size, autoguide=is_auto, num_rows=self._num_rows)
            try:
                loss_and_grads(self._loss, model, self._guide, batch)
            except (ValueError, RuntimeError) as error:
                raise ValueError(explained("online", error, "step")) from None
            self._scaled = scale(model), scale(self._guide)
            self._params = unconstrained_params(self._owner, self._guide)
            with torch.no_grad(), unvalidated():
                traces = trace_pair(prepared.model, self._guide, batch)
            if self._init is not None:
                warm_start(self._init, self._guide, joint, *traces)
        names = {id(leaf): name for name, (leaf, _) in leaves_by_name(*traces).items()}
        self._names = [names.get(id(p), f"parameter {i}") for i, p in enumerate(self._params)]
        self._optimiser, self._average = Optimiser(self._rule, self._params, self._lr), Average(self._params)
        self._averaged = 0  # steps
        self._go_on()
        self._parts = {
            "params": Leaves(self._params),
            "optimiser": Memory(self._optimiser),
            "average": self._average,
            "others": Untrained(self._params, self._owner, self._guide),
        }

    def learn(self, step_size: float, number: int, batch: tuple) -> float:
        """Take a gradient step of this size, times ``lr``; return the ELBO per row before it, in nats.

        If that is not finite, no step is taken.
        """
        self._batch = batch
        seed_all(_seed_of(self._seed, number))
        self._optimiser.param_groups[0]["lr"] = self._lr * step_size
        self._optimiser.zero_grad()
        with unvalidated():
            loss = float(loss_and_grads(self._loss, *self._scaled, batch))
        if math.isfinite(loss):
            for p in self._params:
                if p.grad is not None:
                    p.grad /= self._num_rows
            self._optimiser.step()
            self._averaged += 1
            self._average.update((ETA + 1) / (ETA + self._averaged))
        return -loss / self._num_rows

    def state(self) -> Any:
        """Return parameters, the optimiser's memory, and buffers."""
        return {name: part.state() for name, part in self._parts.items()} | {"averaged": self._averaged}

    def restore(self, state: Any) -> None:
        """Set them back."""
        self._averaged = state["averaged"]
        for name, part in self._parts.items():
            part.restore(state[name])

    def cause(self) -> str:
        """Return which site or parameter is not finite, or what to do."""
        found = find_nonfinite(self._prepared.model, self._guide, self._batch)
        return found or ": take a smaller lr, or a larger offset"

    def learned(self, num_draws: int, scores: Tensor) -> Learned:
        """Return draws from the guide at the average of the iterates, and all that a fit after this one needs."""
        prepared, guide, state = self._prepared, self._guide, self._to_go_on()
        self._average.write()
        if not all(bool(p.isfinite().all()) for p in self._params):
            raise FloatingPointError(f"online: the last batch led to parameters that are not finite{self.cause()}")
        with torch.no_grad(), unvalidated():
            guide_trace, model_trace = trace_pair(prepared.model, guide, self.like)
        point = is_point(guide, self.like)
        drawn = draw_guide(prepared.log_joint(), guide, 1 if point else num_draws, False)
        draws = {name: value.cpu()[None] for name, value in drawn.sites.items()}
        length = next(iter(draws.values())).shape[1] if draws else 1
        draws |= {name: value.expand(1, length, *value.shape) for name, value in statement_params(model_trace).items()}
        info = {
            **({} if point else bound_of(self._loss, -scores * self._num_rows, None, large=True)),
            "is_point": point,
            "guide": display_name(self._given),
            "learned": sorted(constrained_params(model_trace)),
            "per_row": prepared.per_row,
            "optim": optim_name(self._optim),
            "state": state,
        }
        return Learned(draws, constrained_params(model_trace, guide_trace), info)

    def _to_go_on(self) -> dict[str, Tensor]:
        """Return iterates, averages and the optimiser's memory by the parameters' names, unconstrained, and steps."""
        memory = self._optimiser.state_dict()
        found = {"averaged": torch.tensor(self._averaged), "steps": torch.tensor(memory["steps"])}
        for name, p, mean, values in zip(
            self._names, self._params, self._average.state()[0], memory["memory"], strict=True
        ):
            found |= {f"iterate/{name}": p, f"average/{name}": mean}
            found |= {f"memory {i}/{name}": value for i, value in enumerate(values)}
        return {name: value.detach().cpu().clone() for name, value in found.items()}

    def _go_on(self) -> None:
        """Take over what `_to_go_on` returned at the end of the fit in ``init``, if that had these parameters."""
        info = self._init.info if isinstance(self._init, Posterior) else None
        if not isinstance(info, OnlineInfo) or info.state is None:
            return
        saved, names = info.state, self._names
        if {f"iterate/{name}" for name in names} != {name for name in saved if name.startswith("iterate/")}:
            return
        if info.optim != optim_name(self._optim):
            raise ValueError(
                f"online: init was learned by {info.optim}, whose memory {optim_name(self._optim)} cannot take over: "
                "give the same optim, or init=posterior.params"
            )
        Leaves(self._params).restore([saved[f"iterate/{name}"] for name in names])
        self._average.restore(([saved[f"average/{name}"] for name in names], True))
        memory = [[saved[f"memory {i}/{name}"] for i in range(self._rule.states)] for name in names]
        self._optimiser.load_state_dict({"memory": memory, "steps": saved["steps"].tolist()})
        self._averaged = int(saved["averaged"])


def _seed_of(seed: int, number: int) -> int:
    """Return the seed of one step's noise."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


@contextmanager
def _named() -> Iterator[None]:
    """Have errors of what svi's steps are made of begin with the name of this method."""
    try:
        yield
    except ValueError as error:
        text = str(error)
        raise ValueError(f"online:{text.removeprefix('svi:')}" if text.startswith("svi:") else text) from None
