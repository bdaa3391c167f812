"""Tables of sessions as an Intake 1 catalog: its arguments, entries, YAML, representation and pickles."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, NoReturn, Self

import pyarrow as pa
from intake.catalog import Catalog
from intake.catalog.entry import CatalogEntry
from intake.source.base import NoEntry

from intake_nwbzarr.arguments import (
    check_keywords,
    describe_value,
    invalid_argument,
)
from intake_nwbzarr.catalog.entries import (
    check_credentials,
    check_url,
    masked_arguments,
    masked_options,
    saved_entry,
)
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.errors import (
    NWBZarrError,
    OptionError,
    SessionNotFoundError,
    did_you_mean,
    with_advice,
)
from intake_nwbzarr.location.location import Location
from intake_nwbzarr.location.options import checked_options
from intake_nwbzarr.location.urls import is_encodable
from intake_nwbzarr.sessions.conditions import in_plain_form
from intake_nwbzarr.sessions.overview import html_overview, shown, text_overview
from intake_nwbzarr.sessions.search import Columns, Selection, search
from intake_nwbzarr.sessions.tables.storages import Storages, table_location
from intake_nwbzarr.sessions.tables.tables import Tables


class TablesCatalog(Catalog):  # type: ignore[misc]
    """Sessions in tables, as Intake uses a catalog; `SessionCatalog` adds what users call."""

    name = "nwbzarr_sessions"
    container = "catalog"
    partition_access = False
    # Notebooks show `_repr_html_` instead of the YAML of the entry.
    _ipython_display_ = None
    # Sessions are not compared by the arguments that the catalog was opened with.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __init__(
        self,
        urlpath: str | Location,
        storage_options: Mapping[str, Any] | Storages | None = None,
        table_options: Mapping[str, Any] | None = None,
        search: Mapping[str, Any] | list[Mapping[str, Any]] | None = None,
        name: str | None = None,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        if keywords:
            from intake_nwbzarr.backend import NWBZarrBackendEntrypoint

            known = (*NWBZarrBackendEntrypoint.open_dataset_parameters[1:], "cache", "chunks")
            check_keywords("SessionCatalog", keywords, known)
        self.urlpath = urlpath
        self.table_options = table_options
        self.keywords = keywords
        # Of all searches up to this catalog; None after filter() or sample(), which are no conditions.
        self._conditions: list[Mapping[str, Any]] | None = _checked_conditions(search)
        self._columns: Columns | None = None
        self._selection: Selection | None = None
        # Whether the selection is not only that of the arguments.
        self._is_derived = False
        options = (
            storage_options if isinstance(storage_options, Storages) else checked_options(storage_options)
        )
        super().__init__(name=name or "sessions", description=description, metadata=metadata, ttl=None)
        self.storage_options = options
        # As they were given, for saved entries.
        self._shown_options = None if isinstance(options, Storages) else masked_options(options)

    @property
    def tables(self) -> Tables:
        """Return the tables, in the state in which they were opened."""
        return self._opened.tables

    @property
    def storages(self) -> Storages:
        """Return the storage options by name, with the locations that they may be used for."""
        if not isinstance(self.storage_options, Storages):
            self.storage_options = Storages.of(self._location(), self.storage_options)
        return self.storage_options

    @property
    def selection(self) -> Selection:
        """Return the rows of the tables that this catalog has."""
        if self._selection is None:
            selection = Selection(self._opened.everything)
            for conditions in self._conditions or ():
                selection = search(self._opened, selection, conditions, rendered=True)
            self._selection = selection
        return self._selection

    @property
    def columns(self) -> list[str]:
        """Return the names of the columns of the table ``sessions``."""
        return self.tables.columns("sessions")

    @property
    def _opened(self) -> Columns:
        if self._columns is None:
            with with_advice(self.storages.table_advice):
                self._columns = Columns(Tables(self.storages.tables).opened())
        return self._columns

    def _location(self) -> Location:
        if isinstance(self.storage_options, Storages):
            return self.storage_options.tables
        templates = self._templates()
        check_url(self.urlpath, templates.get("urlpath"))
        for options, argument in (
            (self.storage_options, "storage_options"),
            (checked_options(self.table_options), "table_options"),
        ):
            check_credentials(self.urlpath, options, templates.get(argument))
        return table_location(self.urlpath, self.table_options, self.storage_options)

    def _templates(self) -> Mapping[str, Any]:
        try:
            templates: Mapping[str, Any] = self.entry.describe()["args"]
        except NoEntry:
            return {}
        return templates

    def force_reload(self) -> None:
        """Open the tables again on next use; not for the result of a search."""
        if not self._is_derived:
            self._columns = self._selection = None

    def _searched(self, conditions: Mapping[str, Any]) -> Self:
        before = self._conditions
        return self._derived(
            search(self._opened, self.selection, conditions),
            None if before is None else [*before, conditions],
        )

    def _derived(self, selection: Selection, conditions: list[Mapping[str, Any]] | None = None) -> Self:
        new = type(self)(
            self.urlpath,
            self.storages,
            self.table_options,
            name=self.name,
            description=self.description,
            metadata=dict(self.metadata),
            **self.keywords,
        )
        new._columns, new._selection, new._is_derived = self._opened, selection, True
        new._conditions, new._shown_options = conditions, self._shown_options
        return new

    def __iter__(self) -> Iterator[str]:
        return iter(self._row_of)

    def __len__(self) -> int:
        return len(self.selection.rows)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._row_of

    def __getitem__(self, key: Any) -> NWBZarrSource:
        if key in self or (isinstance(key, tuple) and len(key) == 1 and key[0] in self):
            source: NWBZarrSource = super().__getitem__(key)
            return source
        raise self._not_found(key)

    def __getattr__(self, name: str) -> Any:
        # Sessions are not attributes: their keys are locations.
        if name == "entry":
            raise NoEntry("Source was not made from a catalog entry")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*dir(type(self)), *self.__dict__})

    @property
    def _row_of(self) -> dict[str, int]:
        """Return the rows of the sessions by key."""
        if "_rows" not in self.__dict__:
            rows = self.selection.rows
            (location,) = self._opened.get("sessions", ["location"])
            self._rows: dict[str, int] = dict(
                zip(location.take(pa.array(rows)).to_pylist(), rows.tolist(), strict=True)
            )
        return self._rows

    def _row(self, key: Any) -> int:
        row = self._row_of.get(key) if isinstance(key, str) else None
        if row is None:
            raise self._not_found(key)
        return row

    def _not_found(self, key: Any) -> SessionNotFoundError:
        shown = describe_value(key)
        if not isinstance(key, str):
            return SessionNotFoundError(
                f"The keys of a catalog of sessions are locations, not {shown}.",
                location=self.tables.place,
                found=shown,
                next_step="See list(catalog) or catalog.df; catalog.filter(...) takes several of them.",
            )
        left_out = is_encodable(key) and self._opened.rows_of(pa.array([key], pa.string()))[0] >= 0
        advice = (
            "It is in the tables, but not among the sessions that the search found." if left_out else None
        )
        if advice is None:
            advice = did_you_mean(key, self._row_of) if len(self._row_of) < 10_000 else None
        return SessionNotFoundError(
            f"No session {shown} in {self.tables.place}.",
            location=self.tables.place,
            found=shown,
            next_step=advice or "Keys are locations: see list(catalog) or catalog.df.",
        )

    def _source(self, key: str, given: Mapping[str, Any]) -> NWBZarrSource:
        row = self._row(key)
        storage, prefix, description = (
            column[row].as_py()
            for column in self._opened.get("sessions", ["storage", "source", "session_description"])
        )
        keywords = dict(self.keywords)
        if self.tables.has_snapshots:
            from intake_nwbzarr.copies.snapshot import SnapshotInTable

            (document,) = self.tables.snapshots([row])
            if document is not None:
                keywords["snapshot"] = SnapshotInTable(document, key)
        location = self.storages.location(key, storage, prefix)
        source = NWBZarrSource(**{"urlpath": location, **keywords, **given})
        source.name, source.description, source.cat = key, description, self
        source.advice = self.storages.advice(key, storage)
        return source

    def _make_entries_container(self) -> Mapping[str, CatalogEntry]:
        return _Entries(self)

    def configure_new(self, /, *keys: Any, **keywords: Any) -> Self:
        """Return the catalog with other arguments; a search's result keeps its tables and sessions."""
        if keys:
            raise OptionError(
                f"A catalog takes keywords only, not {describe_value(keys[0])}.",
                found=describe_value(keys[0]),
                next_step="A session is catalog[key].",
            )
        if not self._is_derived:
            try:
                new: Self = super().configure_new(**keywords)
            except OptionError as error:
                self._suggest_parameter(error)
                raise
            return new
        if not keywords:
            return self
        if fixed := {"urlpath", "table_options"} & set(keywords):
            raise OptionError(
                f"The result of a search has no other {min(fixed)} than the catalog that was searched.",
                found=min(fixed),
                next_step="Open the other tables, and search them.",
            )
        searches = _checked_conditions(keywords.pop("search", None))
        given: dict[str, Any] = {"urlpath": self.urlpath, "storage_options": self.storages, **self.keywords}
        new = type(self)(**{**given, **keywords})
        new._columns, new._selection, new._is_derived = self._columns, self._selection, True
        new._conditions = self._conditions
        if "storage_options" not in keywords:
            new._shown_options = self._shown_options
        for conditions in searches:
            new = new._searched(conditions)
        return new

    __call__ = get = configure_new

    def _suggest_parameter(self, error: OptionError) -> None:
        """Suggest the user parameters of the entry for a keyword that neither they nor sources have."""
        parameters = [] if self._entry is None else self._entry.describe()["user_parameters"]
        names = [each["name"] for each in parameters]
        if names and isinstance(error.found, str) and f"no keyword {error.found!r}" in str(error):
            advice = f"The parameters of this entry are {', '.join(names)}."
            error.next_step = did_you_mean(error.found, names) or f"{advice} {error.next_step}"

    def pop(self, key: Any) -> NWBZarrSource:
        """Refuse to remove a session, which is a row of the tables."""
        raise OptionError(
            "Sessions are rows of the tables, and cannot be removed from a catalog.",
            found=describe_value(key),
            next_step="Leave sessions out with catalog.search(...) or catalog.filter(...).",
        )

    def __setitem__(self, key: Any, entry: Any) -> None:
        """Refuse to add a session, which is a row of the tables."""
        raise OptionError(
            "Sessions are rows of the tables, and cannot be added to a catalog.",
            found=describe_value(key),
            next_step="Scan them into the tables with: nwbzarr catalog scan.",
        )

    def read(self, *_arguments: Any, **_keywords: Any) -> NoReturn:
        """Refuse to read all sessions as one object, as Intake's other sources are read."""
        raise OptionError(
            "A catalog of sessions cannot be read as one object.",
            location=self.urlpath,
            next_step="Read one session with catalog[key].read(), a table of all of them with "
            "catalog.table('units'), or call a function with each one: catalog.map(function).",
        )

    to_dask = to_spark = read_chunked = read_partition = read

    def __enter__(self) -> Self:
        return self

    def describe(self) -> dict[str, Any]:
        """Return the catalog's description of this entry, with literal secrets masked."""
        try:
            description: dict[str, Any] = super().describe()
        except NoEntry:
            # It was not opened from a catalog file.
            description = {
                "name": self.name,
                "container": self.container,
                "plugin": [type(self).name],
                "driver": [type(self).name],
                "description": self.description or "",
                "direct_access": "forbid",
                "user_parameters": [],
                "metadata": dict(self.metadata),
                "args": self._arguments(),
            }
        return {**description, "args": masked_arguments(description["args"])}

    def discover(self) -> dict[str, Any]:
        """Return the number of sessions as the shape, and Intake's metadata."""
        return {**super().discover(), "shape": (len(self),)}

    def _arguments(self) -> dict[str, Any]:
        arguments = {
            "urlpath": str(self.urlpath),
            "storage_options": self._shown_options,
            "table_options": self.table_options,
            **self.keywords,
        }
        return {name: value for name, value in arguments.items() if value}

    def _yaml(self) -> dict[str, Any]:
        if self._conditions is None:
            raise OptionError(
                "These sessions were selected with filter() or sample(), or unpickled, which an entry of a "
                "catalog file cannot express.",
                next_step="Write an entry for each session with to_yaml().",
            )
        arguments = masked_arguments(self._arguments())
        if self._conditions:
            arguments["search"] = [
                {name: in_plain_form(condition) for name, condition in each.items()}
                for each in self._conditions
            ]
        entry = saved_entry(type(self).name, self.description, self.metadata, arguments)
        return {"sources": {self.name: entry}}

    def __repr__(self) -> str:
        try:
            return text_overview(self._opened, self.selection, self.storages)
        except NWBZarrError as error:
            return f"<SessionCatalog: {shown(str(error))}>"

    def _repr_html_(self) -> str:
        try:
            return html_overview(self._opened, self.selection, self.storages)
        except NWBZarrError:
            return f"<pre>{escape(repr(self))}</pre>"

    def __getstate__(self) -> OrderedDict[str, Any]:
        keywords = {"name": self.name, "description": self.description, "metadata": self.metadata}
        return OrderedDict(
            cls=self.classname,
            args=[],
            kwargs=OrderedDict(urlpath=self.tables.place, storage_options=self.storages, **keywords)
            | self.keywords,
            tables=self.tables,
            selection=self.selection,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        tables, selection = state.pop("tables"), state.pop("selection")
        super().__setstate__(state)
        self._columns, self._selection, self._is_derived = Columns(tables), selection, True
        self._conditions = None

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        found = [(each.name, repr(each.find), each.objects) for each in self.selection.found]
        return (
            type(self).__qualname__,
            str(self.tables.place),
            self.tables.digest,
            self.selection.rows,
            found,
        )


class SessionEntry(CatalogEntry):  # type: ignore[misc]
    """The entry of one session, made when Intake asks for it."""

    _container = "xarray"

    def __init__(self, catalog: TablesCatalog, key: str) -> None:
        super().__init__()
        self._catalog, self.name = catalog, key
        self._user_parameters: list[Any] = []
        self._metadata: dict[str, Any] = {}

    def describe(self) -> dict[str, Any]:
        """Return the description of the session's source."""
        return {
            "name": self.name,
            "container": self._container,
            "driver": [NWBZarrSource.name],
            "plugin": [NWBZarrSource.name],
            "description": "",
            "direct_access": "forbid",
            "user_parameters": [],
            "metadata": {},
            "args": {"urlpath": self.name},
        }

    def get(self, **keywords: Any) -> NWBZarrSource:
        """Return the session's source."""
        return self._catalog._source(self.name, keywords)


class _Entries(Mapping[str, CatalogEntry]):
    """The entries of a catalog, by key, none of which is kept."""

    def __init__(self, catalog: TablesCatalog) -> None:
        self._catalog = catalog

    def __getitem__(self, key: str) -> CatalogEntry:
        self._catalog._row(key)
        return SessionEntry(self._catalog, key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._catalog._row_of)

    def __len__(self) -> int:
        return len(self._catalog)

    def __contains__(self, key: object) -> bool:
        return key in self._catalog._row_of


def _checked_conditions(given: Any) -> list[Mapping[str, Any]]:
    listed: Iterable[Any] = [] if given is None else [given] if isinstance(given, Mapping) else given
    if isinstance(listed, list | tuple) and all(
        isinstance(each, Mapping) and all(isinstance(name, str) for name in each) for each in listed
    ):
        return list(listed)
    raise invalid_argument("search", given, "a dictionary of conditions, or a list of these")
