"""Check a session for what a streaming user will meet: access, metadata, chunks, links, times, costs."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from intake_nwbzarr.arguments import check_bool, invalid_argument, takes_storage_options
from intake_nwbzarr.checks.access import access_of
from intake_nwbzarr.checks.checked import Checked, message
from intake_nwbzarr.checks.chunks import count_chunks
from intake_nwbzarr.checks.codes import CODES
from intake_nwbzarr.checks.costs import ArrayCost, Connection, Timed, array_cost
from intake_nwbzarr.checks.event_checks import event_findings
from intake_nwbzarr.checks.index_checks import index_findings
from intake_nwbzarr.checks.link_checks import link_findings
from intake_nwbzarr.checks.report import Access, Finding, Report, finding, in_order
from intake_nwbzarr.checks.storage_checks import (
    chunk_findings,
    compare_metadata,
    damage_findings,
    format_findings,
    freshness_findings,
)
from intake_nwbzarr.checks.time_checks import note_time_zone, time_findings
from intake_nwbzarr.checks.value_checks import schema_findings, value_findings
from intake_nwbzarr.errors import (
    AccessError,
    ChunkError,
    CredentialsError,
    LimitError,
    ListingError,
    MetadataError,
    NodeNotFoundError,
    NWBZarrError,
    NWBZarrWarning,
)
from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, load_hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.views import open_session, open_tree
from intake_nwbzarr.transport.answers import Listed
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.memory_cache import keeping_in_memory
from intake_nwbzarr.transport.request_log import track_requests

if TYPE_CHECKING:
    import xarray as xr
    from zarr.abc.store import Store

_STEPS: Final = ("opening", "listing", "metadata", "chunks", "links", "times", "values", "nwbinspector")

# Faults of a session that are findings, and not errors of a check.
_FAULTS: Final = (MetadataError, LimitError, ChunkError, NodeNotFoundError)

# Codes of warnings that are about how a session was opened, and not about the session.
_NOT_OF_THE_SESSION: Final = frozenset(
    code.name for code in CODES.values() if code.area == "Of opening and copying only"
)


@dataclass(frozen=True)
class CheckProgress:
    """The progress of a check, as passed to its function `progress`.

    Parameters
    ----------
    steps, of_steps
        How many steps are done, and how many there are.
    step
        What is checked now.
    """

    steps: int
    of_steps: int
    step: str


@takes_storage_options
def check(
    location: str | os.PathLike[str] | Location | Store,
    storage_options: Mapping[str, Any] | None = None,
    *,
    latency: float = Connection.latency,
    bandwidth: float = Connection.bandwidth,
    window: float = Connection.window,
    inspect: bool = False,
    progress: Callable[[CheckProgress], None] | None = None,
) -> Report:
    """Check what somebody who streams a session will meet, and say what mends it.

    Of data, it reads bounded samples: timestamps whole up to 16 MiB, otherwise in blocks, and some blocks of
    series. Storage is listed, and its metadata documents are read once to be compared with the consolidated
    ones. The findings' codes are on the page "Findings", and `intake_nwbzarr.checks.codes.explain` explains
    them.

    Parameters
    ----------
    location
        A path, a URL (``https``, ``s3``, or any that fsspec supports), or an open Zarr store.
    storage_options
        Credentials and other options, named as in s3fs and fsspec.
    latency, bandwidth
        Seconds for a request, and bytes per second, of whoever will read the session: costs assume them.
    window
        Seconds of each recording whose cost is estimated, beside that of the whole recording.
    inspect
        Whether nwbinspector, which has to be installed, checks the session for NWB's best practices as well.
    progress
        Called with a `CheckProgress` before each step.

    Returns
    -------
    Report
        Faults of the session are findings in it, damaged metadata included.

    Raises
    ------
    LocationNotFoundError, NotZarrError, NotNWBError
        When the location is not an NWB file.
    AccessError, CredentialsError
        When access is denied.
    TransportError, HostNotFoundError
        When requests fail after retries.
    MissingPackageError
        When nwbinspector is asked for and not installed.
    OptionError
        When an argument is not valid.

    Examples
    --------
    >>> report = check("s3://lab/sub-1.nwb.zarr")  # doctest: +SKIP
    >>> [(finding.code, finding.path) for finding in report.findings]  # doctest: +SKIP
    [('small-chunks', 'acquisition/ElectricalSeries/data')]
    """
    for name, value in (("latency", latency), ("bandwidth", bandwidth), ("window", window)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
            raise invalid_argument(name, value, "a positive number")
    check_bool("inspect", inspect)
    inspector = None
    if inspect:
        from intake_nwbzarr.checks.inspector import inspector_findings

        inspector = inspector_findings()
    where = locate(location, storage_options)
    connection = Connection(float(latency), float(bandwidth), float(window))
    with track_requests() as log:
        checked = _Check(where, _steps(progress, inspect=inspect))
        checked.run(connection)
        inspected = None if inspector is None else _inspected(checked, inspector)
    hierarchy = checked.hierarchy
    is_zarr = hierarchy is not None and not hierarchy.location.is_hdf5
    return Report(
        location=str(where if hierarchy is None else hierarchy.location),
        format=_format(hierarchy),
        consolidated=hierarchy.consolidated if hierarchy is not None and is_zarr else None,
        fresh=checked.fresh,
        nwb_version=_version(hierarchy),
        access=checked.access,
        findings=in_order(checked.findings),
        inspected=None if inspected is None else in_order(inspected),
        costs=tuple(checked.costs),
        connection=connection,
        unchecked=tuple(dict.fromkeys(checked.unchecked)),
        requests=log.requests,
        received=log.bytes,
    )


def _steps(progress: Callable[[CheckProgress], None] | None, *, inspect: bool) -> Callable[[str], None]:
    steps = _STEPS if inspect else _STEPS[:-1]

    def begin(step: str) -> None:
        if progress is not None:
            progress(CheckProgress(steps.index(step), len(steps), step))

    return begin


@dataclass
class _Check:
    """One check, and what it has found so far."""

    where: Location
    begin: Callable[[str], None]
    hierarchy: Hierarchy | None = None
    fresh: bool | None = None
    access: Access = field(default_factory=Access)
    findings: list[Finding] = field(default_factory=list)
    costs: list[ArrayCost] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    def run(self, connection: Connection) -> None:
        """Make all checks."""
        self.begin("opening")
        with track_requests() as opening, self._collected():
            hierarchy = self.hierarchy = self._opened()
        if hierarchy is None:
            return
        datasets: dict[str, xr.Dataset] = {}
        with self._collected():
            datasets = self._view("the tree", lambda: open_tree(hierarchy, MappingOptions())) or {}
            self._view("the flat Dataset", lambda: open_session(hierarchy, MappingOptions()))
        self.begin("listing")
        listed = self._listed(hierarchy)
        self.access = access_of(hierarchy, self.unchecked)
        counts = None
        if listed is not None or hierarchy.location.is_hdf5:
            counts = count_chunks(hierarchy, keys=listed)
        else:
            self.unchecked.append("how many chunks are stored: the storage cannot be listed")
        session = Checked(hierarchy, listed, counts, self.begin, self.unchecked)
        if self.access.anonymous is False:
            self._add([session.finding("not-public", "", "An unsigned request was denied.")])
        self.begin("metadata")
        self._add(format_findings(session, opening.requests))
        self._add(damage_findings(session))
        compared = compare_metadata(session)
        self.fresh = None if compared is None else compared.up_to_date
        self._add(freshness_findings(session, compared))
        self.begin("chunks")
        self._add(chunk_findings(session))
        self.begin("links")
        with self._collected():
            self._add(link_findings(session))
            self._add(index_findings(session))
            self._add(schema_findings(session))
        self.begin("times")
        with self._collected():
            self._add(note_time_zone(session))
            self._add(time_findings(session))
            self._add(event_findings(session))
        self.begin("values")
        self._add(value_findings(session))
        self._add(session.damaged)
        self.costs = _costs(session, datasets, connection)

    def _add(self, found: Iterator[Finding] | list[Finding]) -> None:
        """Add findings, but not what the mapping has warned of already."""
        known = {(each.code, each.path) for each in self.findings}
        # A region whose table is missing is found by the mapping, and its reference to that leads to nothing.
        known |= {("dangling-reference", path) for code, path in known if code == "region-without-table"}
        self.findings += [each for each in found if (each.code, each.path) not in known]

    def _opened(self) -> Hierarchy | None:
        """Open the session; where its consolidated metadata are damaged, by listing it."""
        try:
            return load_hierarchy(self.where, keeping_in_memory())
        except _FAULTS as error:
            self._add([self._fault(error, "the session")])
        try:
            return load_hierarchy(self.where.read_consolidated(False), keeping_in_memory())
        except (*_FAULTS, ListingError) as error:
            self.unchecked.append(f"all but its metadata: {message(error)}")
            return None

    def _view[T](self, what: str, view: Callable[[], T]) -> T | None:
        try:
            return view()
        except _FAULTS as error:
            self._add([self._fault(error, what)])
        except CredentialsError:
            raise
        except (AccessError, ListingError) as error:
            code = "denied-chunks" if isinstance(error, AccessError) else "cannot-open"
            self._add([self._fault(error, what, code)])
        return None

    def _fault(self, error: NWBZarrError, what: str, code: str = "cannot-open") -> Finding:
        text = f"Opening {what}: {message(error)}"
        return finding(code, error.path or "", text, self.where)

    def _listed(self, hierarchy: Hierarchy) -> list[Listed] | None:
        if hierarchy.location.is_hdf5:
            return None
        try:
            return run(hierarchy.transport.list())
        except CredentialsError:
            raise
        except (ListingError, AccessError, MetadataError, LimitError):
            return None

    @contextmanager
    def _collected(self) -> Iterator[None]:
        """Turn the package's warnings, which have codes, into findings."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        told: dict[tuple[str, str], str] = {}
        for each in caught:
            warning = each.message
            if not isinstance(warning, NWBZarrWarning) or warning.code in _NOT_OF_THE_SESSION:
                continue
            if warning.code in CODES:
                told.setdefault((warning.code, warning.path or ""), str(warning))
        self._add(
            [
                finding(code, path, self._without_location(text), self.where)
                for (code, path), text in told.items()
            ]
        )

    def _without_location(self, text: str) -> str:
        """Return a warning without its advice, and the session's location, both of which a report has."""
        location = str(self.where)
        text = text.partition(" Its owner can ")[0].replace(f" of {location}", "")
        return f"It{text.removeprefix(location)}" if text.startswith(location) else text


def _costs(session: Checked, datasets: Mapping[str, xr.Dataset], connection: Connection) -> list[ArrayCost]:
    """Return the costs of all arrays, of those that take the most bytes first."""
    timed = dict(_timed(session, datasets))
    costs = [
        array_cost(node, session.counted.get(node.path), timed.get(node.path), connection)
        for node in session.arrays
        if node.size
    ]
    return sorted(costs, key=lambda cost: (-cost.whole.nbytes, cost.path))


def _timed(session: Checked, datasets: Mapping[str, xr.Dataset]) -> Iterator[tuple[str, Timed]]:
    """Yield the arrays that have times, with the axis and the rate of these."""
    from intake_nwbzarr.accessor.times import indexed_times, rate_of
    from intake_nwbzarr.indexes import LazyTimeIndex

    for dataset in datasets.values():
        rates: dict[str, float] = {}
        for time in indexed_times(dataset):
            path = str(dataset.coords.variables[time.name].attrs.get("nwb_path", ""))
            regular = time.index.as_regular if isinstance(time.index, LazyTimeIndex) else None
            rate = rate_of(regular) if regular is not None else session.rates.get(path)
            if rate:
                rates[time.dim] = rate
                if regular is None:
                    yield path, Timed(0, rate)
        for variable in dataset.variables.values():
            path = str(variable.attrs.get("nwb_path", ""))
            # The data of a series have the path of the series.
            array = session.nodes.get(f"{path}/data", session.nodes.get(path))
            if not isinstance(array, ArrayNode) or "nwb_derived" in variable.attrs:
                continue
            axis = next((axis for axis, dim in enumerate(variable.dims) if dim in rates), None)
            if axis is not None and variable.shape == array.shape:
                yield array.path, Timed(axis, rates[str(variable.dims[axis])])


def _inspected(checked: _Check, inspector: Callable[[Hierarchy, list[str]], list[Finding]]) -> list[Finding]:
    if checked.hierarchy is None:
        checked.unchecked.append("NWB's best practices: the session cannot be opened")
        return []
    checked.begin("nwbinspector")
    try:
        return inspector(checked.hierarchy, checked.unchecked)
    except _FAULTS as error:
        checked.unchecked.append(f"NWB's best practices: {message(error)}")
        return []


def _format(hierarchy: Hierarchy | None) -> str | None:
    if hierarchy is None:
        return None
    return "HDF5" if hierarchy.location.is_hdf5 else f"Zarr {hierarchy.zarr_format}"


def _version(hierarchy: Hierarchy | None) -> str | None:
    version = None if hierarchy is None else hierarchy[""].attributes.get("nwb_version")
    return None if version is None else str(version)
