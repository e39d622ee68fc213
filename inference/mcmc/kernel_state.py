"""Where one of Pyro's Hamiltonian kernels stands, as part of a checkpoint: all that is private to Pyro in that."""

from typing import Any

from pyro.infer import HMC

from ..checkpoints.trees import moved_to

OWN = (
    "_t",
    "_accept_cnt",
    "_mean_accept_prob",
    "_divergences",
    "_z_last",
    "_potential_energy_last",
    "_z_grads_last",
    "trajectory_length",
)
METRIC = ("_inverse_mass_matrix", "_mass_matrix_sqrt", "_mass_matrix_sqrt_inverse", "is_dense", "_draws")


class KernelState:
    """Position, step size, metric, dual averaging and counts of a kernel that has been set up."""

    def __init__(self, kernel: HMC) -> None:
        self._kernel = kernel

    def state(self) -> dict[str, Any]:
        """Return them all."""
        adapter, metric = self._kernel._adapter, self._kernel.mass_matrix_adapter
        return {
            "own": {name: getattr(self._kernel, name) for name in OWN},
            "step_size": adapter.step_size,
            "window": adapter._current_window,
            "averaging": dict(vars(adapter._step_size_adapt_scheme)) if adapter.adapt_step_size else {},
            "metric": {name: getattr(metric, name) for name in METRIC if hasattr(metric, name)},
            "moments": {names: dict(vars(scheme)) for names, scheme in metric._adapt_scheme.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Set the kernel back."""
        adapter, metric = self._kernel._adapter, self._kernel.mass_matrix_adapter
        energy: Any = self._kernel._potential_energy_last
        state = moved_to(energy.device, state)
        vars(self._kernel).update(state["own"])
        vars(metric).update(state["metric"])
        adapter.step_size, adapter._current_window = state["step_size"], state["window"]
        if adapter.adapt_step_size:
            vars(adapter._step_size_adapt_scheme).update(state["averaging"])
        for names, moments in state["moments"].items():
            vars(metric._adapt_scheme[names]).update(moments)
