"""A progress bar on standard error that can be switched off."""

from typing import Any


class Progress:
    """One task of known length, with a few words about its state."""

    def __init__(self, title: str, total: int, shown: bool) -> None:
        self._bar = self._task = None
        if shown:
            from rich import progress  # slow to import
            from rich.console import Console

            self._bar = progress.Progress(
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[words]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(title, total=total, words="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def update(self, done: int, words: str = "") -> None:
        """Show that ``done`` steps of the total are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, words=words)  # pyright: ignore[reportArgumentType]

    def __exit__(self, *error: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
