"""A progress bar of sessions, in a terminal or notebook."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from intake_nwbzarr.arguments import check_choice


class Progress:
    """Counts sessions; this one shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the bar as it is."""

    def note(self, state: str) -> None:
        """Count a session that is done, failed or cancelled."""


class _Bar(Progress):
    """Shows counts, and how long it still takes, by rich."""

    def __init__(self, bar: Any, task: Any) -> None:
        self._bar, self._task = bar, task
        self._failed = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def note(self, state: str) -> None:
        self._failed += state == "failed"
        self._bar.update(self._task, advance=1, failed=f"{self._failed:,} failed" if self._failed else "")


def shown_progress(progress: object, total: int | None, name: str) -> Progress:
    """Return the progress of a map: shown with True, and with None in a terminal or notebook."""
    check_choice("progress", progress, (True, False, None))
    if progress is False:
        return Progress()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if progress is None and not (console.is_terminal or console.is_jupyter):
        return Progress()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}", style="red", markup=False),
        TimeRemainingColumn(),
    )
    bar = Bar(*columns, console=console)
    return _Bar(bar, bar.add_task(name, total=total, failed=""))
