"""What commands print: text, JSON, lines of errors and warnings, and progress bars."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from rich.console import Console
from rich.markup import escape


class Output(Console):
    """Standard output or error that ignores a closed pipe: the command continues."""

    def on_broken_pipe(self) -> None:
        """Discard further output, so that a reader such as `head` does not change the exit status."""
        with open(os.devnull, "w") as null:  # noqa: PTH123 - replaces the pipe's descriptor
            os.dup2(null.fileno(), self.file.fileno())


messages = Output(stderr=True, soft_wrap=True)
"""Standard error."""


def print_text(text: str) -> None:
    """Print plain text to standard output; a session's names and texts do not control the terminal."""
    from intake_nwbzarr.untrusted_input import printable

    Output(soft_wrap=True).print(printable(text), markup=False, highlight=False, emoji=False)


def print_json(document: object) -> None:
    """Print one JSON document to standard output."""
    import msgspec

    print_text(msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2).decode())


def one_line(error: Exception) -> str:
    """Return the message of an error in one line, with its class if it is not one of the package."""
    from intake_nwbzarr.errors import NWBZarrError
    from intake_nwbzarr.untrusted_input import printable

    text = printable(" ".join(str(error).split()))
    return text if isinstance(error, NWBZarrError) else f"{type(error).__name__}: {text}"


def show_error(error: Exception) -> None:
    """Print an error, one red line that ends in its class, which `nwbzarr explain` explains."""
    from intake_nwbzarr.errors import NWBZarrError

    text = one_line(error) + (f" [{type(error).__name__}]" if isinstance(error, NWBZarrError) else "")
    messages.print(f"[bold red]Error:[/] {escape(text)}", style="red", highlight=False)


def show_failure(location: str, error: str) -> None:
    """Print the error of a location, one red line."""
    text = error if location in error else f"{location}: {error}"
    messages.print(f"[bold red]Error:[/] {escape(text)}", style="red", highlight=False)


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning, one yellow line that ends in its code, which `nwbzarr explain` explains."""
    code = getattr(message, "code", "")
    from intake_nwbzarr.untrusted_input import printable

    text = printable(f"{message} [{code}]" if code else str(message))
    messages.print(f"[bold yellow]Warning:[/] {escape(text)}", style="yellow", highlight=False)


@contextmanager
def progress_bar[P](
    console: Console, begin: str, fields: Callable[[P], dict[str, Any]]
) -> Iterator[Callable[[P], None]]:
    """Yield a callback that shows progress in a bar, from any thread; nothing if not on a terminal.

    Parameters
    ----------
    console
        The terminal.
    begin
        What the command does until the first progress.
    fields
        Returns what the bar shows of a progress.
    """
    from intake_nwbzarr.sessions.progress import new_bar

    with new_bar(console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(begin, total=None, unit="", failed="")
        yield lambda progress: bar.update(task, **fields(progress))


def waiting(doing: str) -> AbstractContextManager[Any]:
    """Show on a terminal that a command is at work, while it cannot tell how far it is."""
    return messages.status(doing) if messages.is_terminal else nullcontext()
