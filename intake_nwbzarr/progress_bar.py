"""The bar that shows how far a download is, on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from intake_nwbzarr.prepare.download.report import Progress
from intake_nwbzarr.transport.log import readable_size


@contextmanager
def progress_bar(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show a bar, and take it away at the end; nothing where the console is no terminal.

    Yields
    ------
    callable
        To be told of progress, from any thread.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("objects"),
        TextColumn("{task.fields[size]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("listing", total=None, size="")

        def show(progress: Progress) -> None:
            size = readable_size(progress.bytes)
            if progress.of_bytes is not None:
                size += f" of {readable_size(progress.of_bytes)}"
            bar.update(
                task,
                description=progress.doing,
                completed=progress.objects,
                total=progress.of_objects,
                size=size,
            )

        yield show
