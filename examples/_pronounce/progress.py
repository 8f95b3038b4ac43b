"""What is on the screen while the model learns."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Bar:
    """A progress bar with the loss, the real letters per second and the time left."""

    def __init__(self, progress: Progress, done: int, total: int):
        self._progress = progress
        self._task = progress.add_task(
            "Training", completed=done, total=total, loss="", speed="", error=""
        )

    def update(self, step: int, loss: float, letters_per_second: float) -> None:
        """Show where training is."""
        self._progress.update(
            self._task,
            completed=step,
            loss=f"loss {loss:.3f}",
            speed=f"{letters_per_second:,.0f} letters/s",
        )


@contextmanager
def bar(console: Console, done: int, total: int) -> Iterator[Bar]:
    """Show a bar while the block runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[loss]}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        yield Bar(progress, done, total)
