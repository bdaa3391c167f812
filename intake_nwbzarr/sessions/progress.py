"""A progress bar in a terminal or notebook: of mapped sessions, and of the commands that take long."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from intake_nwbzarr.arguments import check_choice

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar


def new_bar(console: Console, **options: Any) -> Bar:
    """Return a bar without tasks; each task has a description, and the fields `unit` and `failed`."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}", markup=False),
        TextColumn("{task.fields[failed]}", style="red", markup=False),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=console, **options)


def failed_text(count: int) -> str:
    """Return how many sessions failed, as the bar shows it."""
    return f"{count:,} failed" if count else ""


class Progress:
    """Counts the sessions of a map, in a bar if there is one."""

    def __init__(self, bar: Bar | None, total: int | None = None, name: str = "") -> None:
        self._bar = bar
        self._task = None if bar is None else bar.add_task(name, total=total, unit="", failed="")
        self._failed = 0

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, state: str) -> None:
        """Count a session that is done, failed or cancelled."""
        self._failed += state == "failed"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=1, failed=failed_text(self._failed))


def shown_progress(progress: object, total: int | None, name: str) -> Progress:
    """Return the progress of a map: shown with True, and with None where a bar can be."""
    check_choice("progress", progress, (True, False, None))
    if progress is False:
        return Progress(None)
    from rich.console import Console

    console = Console(stderr=True)
    # rich needs ipywidgets for it in a notebook, and warns without.
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    is_shown = progress or console.is_terminal or in_notebook
    return Progress(new_bar(console) if is_shown else None, total, name)
