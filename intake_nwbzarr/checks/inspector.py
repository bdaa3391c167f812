"""Findings of nwbinspector, which checks NWB's best practices, where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

from intake_nwbzarr.checks.codes import Severity
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.errors import import_optional
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy
from intake_nwbzarr.raw import nwb_of, read_by_pynwb

_FAILED: Final = "ERROR"
"""The importance of messages that a check of nwbinspector itself failed."""

_SEVERITIES: Final[dict[str, Severity]] = {
    "PYNWB_VALIDATION": "error",
    "CRITICAL": "error",
    "BEST_PRACTICE_VIOLATION": "warning",
    "BEST_PRACTICE_SUGGESTION": "hint",
}


def inspector_findings() -> Callable[[Hierarchy, list[str]], list[Finding]]:
    """Return what runs nwbinspector on a session.

    Raises
    ------
    MissingPackageError
        When it is not installed.
    """
    inspect_nwbfile_object = import_optional(
        "nwbinspector", "nwbinspector", "check(inspect=True)"
    ).inspect_nwbfile_object

    def inspect(hierarchy: Hierarchy, unchecked: list[str]) -> list[Finding]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if hierarchy.location.is_hdf5:
                with read_by_pynwb(hierarchy) as nwbfile:
                    return list(_findings(inspect_nwbfile_object(nwbfile), unchecked))
            return list(_findings(inspect_nwbfile_object(nwb_of(hierarchy)), unchecked))

    return inspect


def _findings(messages: Any, unchecked: list[str]) -> Iterator[Finding]:
    for each in messages:
        if each is None:
            continue
        if each.importance.name == _FAILED:
            # Its message is a traceback, and the name of the check tells the error.
            unchecked.append(f"by nwbinspector: {each.check_function_name}")
            continue
        severity = _SEVERITIES.get(each.importance.name, "hint")
        path = str(each.location or "").strip("/")
        text = " ".join(str(each.message).split())
        yield Finding(str(each.check_function_name), severity, path, text, "", "")
