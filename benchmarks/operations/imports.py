"""What importing costs: the backend beyond xarray and zarr, and `import intake` with us installed."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from importlib import import_module
from typing import Any

from benchmarks.operations.ours import Options, Run


def backend(url: str, options: Options) -> Run:  # noqa: ARG001 (no session is opened)
    """The module that xarray imports when it looks for engines."""
    import_module("xarray")
    import_module("zarr")

    def run() -> None:
        import_module("intake_nwbzarr.backend")

    return run


def intake(url: str, options: Options, *, installed: bool) -> Run:  # noqa: ARG001 (no session is opened)
    """``import intake``, which imports what installed packages name to it."""
    # Looking at every distribution's name takes time: both sides spend it.
    _hide("no-such-package" if installed else "intake-nwbzarr")

    def run() -> None:
        import_module("intake")

    return run


def _hide(name: str) -> None:
    """Let this process take a package for not installed."""
    finder = importlib.metadata.MetadataPathFinder
    find = finder.find_distributions

    def others(*arguments: Any, **keywords: Any) -> Iterable[importlib.metadata.Distribution]:
        return (each for each in find(*arguments, **keywords) if each.metadata["Name"] != name)

    finder.find_distributions = others  # type: ignore[method-assign, assignment]
