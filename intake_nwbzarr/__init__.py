"""NWB sessions in the cloud, Zarr or HDF5, as lazy, labelled xarray objects, Intake catalogs and pynwb files.

The face of the package. Most use needs none of it: ``xarray.open_dataset(url, engine="nwbzarr")`` and
``intake.open_catalog("catalog.yaml").session.read()`` find the package through its entry points.

============================  ==========================================================================
`open_nwb`                    the raw `pynwb.NWBFile`, read by NWBZarrIO, of any hdmf-zarr release
`open_hierarchy`              every group and array of a file, as canonical metadata
`track_requests`              how many requests and bytes a block of code took
`set_limits`                  how many requests, bytes and threads are at work at once
`check`                       what somebody who streams a session will meet, and what mends it
`consolidate`                 write or repair a file's consolidated metadata
`is_fresh`                    whether consolidated metadata equal the stored ones
`convert`                     a session as consolidated, sharded Zarr 3
`snapshot`                    save what opening sessions reads, to open them without a request
`session_info`                what a session contains, and how it is stored
`Find`                        conditions on an object, to search many sessions with
`page`                        show a session as one HTML file with pictures
`verify`                      compare what pynwb reads from a file with what xarray shows of it
`download`                    a whole session to a local folder, resumable and verified
`scan`                        tables of many sessions, which can be searched
`scan_dandi`                  the same of dandisets
`MapResult`                   results of a function for many sessions, and how they are read later
`errors`                      the tree of errors and warnings
============================  ==========================================================================

Nothing heavy is imported before it is used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from intake_nwbzarr.checks.check import check
    from intake_nwbzarr.checks.session_info import session_info
    from intake_nwbzarr.checks.verify import verify
    from intake_nwbzarr.conversion.convert import convert
    from intake_nwbzarr.copies.download import download
    from intake_nwbzarr.copies.recording import snapshot
    from intake_nwbzarr.hierarchy.consolidate import consolidate, is_fresh
    from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
    from intake_nwbzarr.limits import set_limits
    from intake_nwbzarr.pages.page import page
    from intake_nwbzarr.raw import open_nwb
    from intake_nwbzarr.sessions.conditions import Find
    from intake_nwbzarr.sessions.map.map_result import MapResult
    from intake_nwbzarr.sessions.scan.dandi import scan_dandi
    from intake_nwbzarr.sessions.scan.scan import scan
    from intake_nwbzarr.transport.request_log import track_requests

__all__ = [
    "Find",
    "MapResult",
    "__version__",
    "check",
    "consolidate",
    "convert",
    "download",
    "errors",
    "is_fresh",
    "open_hierarchy",
    "open_nwb",
    "page",
    "scan",
    "scan_dandi",
    "session_info",
    "set_limits",
    "snapshot",
    "track_requests",
    "verify",
]

__version__ = version("intake-nwbzarr")

_HOMES = {
    "Find": "intake_nwbzarr.sessions.conditions",
    "MapResult": "intake_nwbzarr.sessions.map.map_result",
    "check": "intake_nwbzarr.checks.check",
    "consolidate": "intake_nwbzarr.hierarchy.consolidate",
    "convert": "intake_nwbzarr.conversion.convert",
    "download": "intake_nwbzarr.copies.download",
    "is_fresh": "intake_nwbzarr.hierarchy.consolidate",
    "open_hierarchy": "intake_nwbzarr.hierarchy.hierarchy",
    "open_nwb": "intake_nwbzarr.raw",
    "page": "intake_nwbzarr.pages.page",
    "scan": "intake_nwbzarr.sessions.scan.scan",
    "scan_dandi": "intake_nwbzarr.sessions.scan.dandi",
    "session_info": "intake_nwbzarr.checks.session_info",
    "set_limits": "intake_nwbzarr.limits",
    "snapshot": "intake_nwbzarr.copies.recording",
    "track_requests": "intake_nwbzarr.transport.request_log",
    "verify": "intake_nwbzarr.checks.verify",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("intake_nwbzarr.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
