"""A progress bar on standard error that may be switched off."""

from types import TracebackType

from rich import progress as rich_progress
from rich.console import Console


class Progress:
    """One task of known length; ``update`` sets how much of it is done and a few words about it."""

    def __init__(self, title: str, total: int, shown: bool) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[words]}"),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._bar.add_task(title, total=total, words="")

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def update(self, done: int, words: str = "") -> None:
        """Show that ``done`` of the total is done."""
        self._bar.update(self._task, completed=done, words=words)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
