"""Progress on stderr; nothing is drawn where it is no terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


@contextlib.contextmanager
def counting(what: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar for `what`; yields a function to call with the number done and the total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and not console.quiet
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(what)
        yield lambda done, total: progress.update(task, completed=done, total=total)


class TrainingBar:
    """The bar of a run: epoch, loss, accuracy, pictures per second and time left."""

    def __init__(self, steps: int, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        shown = console.is_terminal and not console.quiet
        self._progress = Progress(*columns, console=console, transient=True, disable=not shown)
        self._task = self._progress.add_task("starting", total=steps, figures="")

    def __enter__(self) -> TrainingBar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def advance(self, steps: int, text: str, loss: float, accuracy: float, rate: float) -> None:
        """Show where the run is.

        Args:
            steps: done in the whole run.
            text: epoch and size.
            loss: mean of the epoch so far.
            accuracy: of the epoch so far, 0 to 1.
            rate: pictures per second.
        """
        figures = f"loss {loss:.3f}  acc {100 * accuracy:.1f} %  {rate:.0f} pictures/s"
        self._progress.update(self._task, completed=steps, description=text, figures=figures)
