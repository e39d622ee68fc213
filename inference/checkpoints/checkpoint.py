"""The checkpoint of one fit, as its loop sees it: it takes back where it stood, and offers where it stands."""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from .files import file_name, read_state, write_state
from .generators import generators, set_generators

EVERY = 30.0  # seconds between two states


class Part(Protocol):
    """Something that changes during a fit: a plan, batches, a chain."""

    def state(self) -> Any:
        """Return a tree of tensors and numbers that says where it stands."""
        ...

    def restore(self, state: Any) -> None:
        """Go back to where it stood."""
        ...


class Checkpoint:
    """States of a fit in a folder; without a folder nothing is kept, and nothing taken back.

    A loop calls `take` before its first step and `offer` after every one, or every block of them. ``made`` says what
    the fit depends on: a state of another is refused.
    """

    def __init__(self, method: str, folder: Path | None, every: float, made: dict[str, Any]) -> None:
        self.method, self.folder, self.every, self.made = method, folder, every, made
        self._parts: dict[str, Part] = {}
        self._saved: dict[str, Any] | None = None
        self._earlier, self._began, self._full = 0.0, time.perf_counter(), False
        if folder is not None:
            self._saved = self._read(folder)
        self._next = time.perf_counter() + every

    def _read(self, folder: Path) -> dict[str, Any] | None:
        """Return the state in a folder, which is made if it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        saved = read_state(self.method, folder)
        if saved is None:
            return None
        if not isinstance(saved, dict) or "made" not in saved:
            raise ValueError(f"{self.method}: {folder} holds no checkpoint of a fit: give another folder")
        if differing := _differing(saved["made"], self.made):
            raise ValueError(
                f"{self.method}: {folder} holds a checkpoint of another fit, with other {', '.join(differing)}: resume "
                "it as it was begun, or give another folder"
            )
        self._earlier = saved["seconds"]
        return saved

    @property
    def seconds(self) -> float:
        """Seconds that runs before this one took up to their last state."""
        return self._earlier

    @property
    def result(self) -> Any:
        """What `finish` kept; None if the fit has not ended."""
        return self._saved and self._saved.get("result")

    def part(self, name: str) -> "Checkpoint":
        """Return the checkpoint of a part of the fit, such as a chain, that another process may keep."""
        return Checkpoint(self.method, self.folder and self.folder / name, self.every, self.made)

    def inside(self, name: str) -> dict[str, Any]:
        """Return the options ``checkpoint`` and ``every`` for a fit that is part of this one."""
        return {"checkpoint": self.folder and self.folder / file_name(name), "every": self.every}

    def add(self, **parts: Part | None) -> None:
        """Have the states of parts kept with those of the loop; None is passed over."""
        self._parts |= {name: part for name, part in parts.items() if part is not None and self.folder is not None}

    def take(self, loop: str, *, with_generators: bool = True) -> Any:
        """Return what the loop of this name offered last, all parts and generators being set back; None at a beginning.

        ValueError if another loop did, since the fit is now done in another way.
        """
        if self._saved is None or "loop" not in self._saved:
            return None
        if self._saved["name"] != loop:
            was = f"the fit in {self.folder} was begun with engine {self._saved['name']!r}"
            raise ValueError(f"{self.method}: {was}, and would go on with {loop!r}: give another folder")
        for name, part in self._parts.items():
            part.restore(self._saved["parts"][name])
        if with_generators:
            self._set_generators(self._saved["generators"])
        return self._saved["loop"]

    def offer(self, loop: str, state: Callable[[], Any]) -> None:
        """Keep the state of the loop of this name, if it is time."""
        if self._is_due():
            parts = {name: part.state() for name, part in self._parts.items()}
            self._write({"name": loop, "loop": state(), "parts": parts, "generators": self._generators()})
            self._next = time.perf_counter() + self.every

    def _is_due(self) -> bool:
        return self.folder is not None and time.perf_counter() >= self._next

    def _generators(self) -> Any:
        return generators()

    def _set_generators(self, states: Any) -> None:
        set_generators(states)

    def begin(self) -> None:
        """Note what the folder is for, unless there is a state in it already."""
        if self._saved is None:
            self._write({})

    def finish(self, result: Any) -> None:
        """Keep the result in place of states."""
        if self.folder is not None:
            self._write({"result": result})

    def _write(self, state: dict[str, Any]) -> None:
        assert self.folder is not None
        seconds = self._earlier + time.perf_counter() - self._began
        try:
            write_state(self.folder, state | {"made": self.made, "seconds": seconds})
        except OSError as error:
            if not self._full or "result" in state:
                why = error.strerror or str(error)
                said = f"{self.method}: no state could be written to {self.folder}: {why}; the last one stands"
                warnings.warn(said, stacklevel=5)
            self._full = True


Place = str | Path | Checkpoint | None
NOT_KEPT = Checkpoint("", None, EVERY, {})


def states_of(checkpoint: Place) -> Checkpoint:
    """Return the checkpoint that was opened for a method's call; one that keeps nothing where there is none."""
    return checkpoint if isinstance(checkpoint, Checkpoint) else NOT_KEPT


def _differing(saved: dict[str, Any], made: dict[str, Any]) -> list[str]:
    """Return the names of what differs."""
    if saved.get("method") != made["method"]:
        return [f"method ({saved.get('method')})"]
    names = [name for name, value in made["versions"].items() if saved["versions"].get(name) != value]
    found = [f"{name} ({saved['versions'].get(name)}, now {made['versions'][name]})" for name in names]
    names = dict.fromkeys([*made["options"], *saved["options"]])
    return found + [name for name in names if saved["options"].get(name) != made["options"].get(name)]
