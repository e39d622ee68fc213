"""Checkpoints: where a fit stands, on disk, so that a run that was killed goes on to the same numbers."""

from .checkpoint import NOT_KEPT, Checkpoint, Place, states_of
from .opening import opened

__all__ = ["NOT_KEPT", "Checkpoint", "Place", "opened", "states_of"]
