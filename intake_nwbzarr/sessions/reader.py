"""The Intake 2 data type and reader of tables of many sessions.

Intake imports this module whenever it is imported, so heavy imports are inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from intake.readers.datatypes import FileData
from intake.readers.readers import BaseReader

from intake_nwbzarr.catalog.entries import masked_options, masked_url

if TYPE_CHECKING:
    from intake_nwbzarr.sessions.catalog import SessionCatalog


class NWBZarrSessions(FileData):  # type: ignore[misc]
    """Tables of many NWB Zarr sessions.

    Parameters
    ----------
    url, storage_options, table_options
        As ``urlpath``, ``storage_options`` and ``table_options`` of `SessionCatalog`. Secrets are masked in
        attributes, catalogs and tokens, and not pickled.
    metadata
        Metadata of the catalog entry.
    """

    filepattern = r"^.*sessions\.parquet$"
    structure: ClassVar = {"catalog"}

    def __init__(
        self,
        url: str,
        storage_options: Mapping[str, Any] | None = None,
        table_options: Mapping[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.table_options = masked_options(table_options)
        super().__init__(
            url=masked_url(url), storage_options=masked_options(storage_options), metadata=metadata
        )
        # Intake shows, saves and hashes every attribute whose name has no leading underscore.
        self._unmasked: tuple[Any, ...] = (url, storage_options, table_options)

    def open(self, **keywords: Any) -> SessionCatalog:
        """Return the catalog of the sessions in the tables."""
        from intake_nwbzarr.sessions.catalog import SessionCatalog

        url, storage_options, table_options = self._unmasked
        return SessionCatalog(url, storage_options, table_options, metadata=self.metadata, **keywords)

    def __getstate__(self) -> dict[str, Any]:
        catalog = self.open()
        return {**self.__dict__, "_unmasked": (catalog.storages.tables, catalog.storages, None)}


class NWBZarrSessionsReader(BaseReader):  # type: ignore[misc]
    """Reader of tables of many sessions, as a `SessionCatalog`.

    Parameters
    ----------
    data
        An `NWBZarrSessions`, or its URL.
    search
        Conditions of a search, as for `SessionCatalog.search`, or a list of these.
    **keywords
        Keywords of the sources of the sessions: ``chunks``, ``names``, ``dtype``, ...
    """

    implements: ClassVar = {NWBZarrSessions}
    imports: ClassVar = {"pyarrow"}
    func = "intake_nwbzarr.sessions.catalog:SessionCatalog"
    output_instance = "intake_nwbzarr.sessions.catalog:SessionCatalog"

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        from intake_nwbzarr.arguments import check_keywords

        # Intake shows, saves and hashes the keywords, so none of them may be a secret.
        check_keywords("NWBZarrSessionsReader", keywords)
        super().__init__(*arguments, **keywords)

    def _read(self, data: NWBZarrSessions, **keywords: Any) -> SessionCatalog:
        return data.open(**keywords)
