"""Checking: whether what a snapshot holds of a file is still what is stored."""

from __future__ import annotations

import re
from functools import partial
from typing import Final, Literal

from intake_nwbzarr.errors import ObjectChangedError
from intake_nwbzarr.location import Location
from intake_nwbzarr.snapshots.records import CONSOLIDATED, KeptFile, KeptObject, listing_digest
from intake_nwbzarr.transport.contract import Transport, Unchanged
from intake_nwbzarr.transport.requests import gather, open_transport, run, standing_in

type Verify = Literal["metadata", "all", False]

# RFC 9110, 8.8.3. Nothing else goes into a request: neither `*`, which every object matches, nor a header.
_ENTITY_TAG: Final = re.compile(r'(W/)?"[\x21\x23-\x7e]*"')
_LISTING = "the listing of its metadata documents"


def changed_since(file: KeptFile, location: Location, verify: Verify) -> str | None:
    """What of a file is not what the snapshot holds.

    One conditional GET for its consolidated metadata; a listing, where it has none. ``"all"``: a conditional
    GET also for each further object. Storage without ETags gives the objects, which are compared.

    Parameters
    ----------
    file
        What the snapshot holds.
    location
        Where the file is; the snapshot has no say in that.
    verify
        What is compared.

    Returns
    -------
    str or None
        A key, or what else has changed; None where nothing has.

    Raises
    ------
    NWBZarrError
        As `intake_nwbzarr.transport.contract.Transport.get`.
    """
    with standing_in(None):
        transport = open_transport(location.uncached)
    try:
        return run(_first_change(file, transport, verify))
    except ObjectChangedError:
        # An archive whose directory this process had read was replaced: it is read anew.
        return run(_first_change(file, transport, verify))


async def _first_change(file: KeptFile, transport: Transport, verify: Verify) -> str | None:
    keys = [key for key in file.objects if _is_worth_asking(file, key)] if verify == "all" else file.documents
    same = await gather([partial(_is_same, file, key, transport) for key in keys])
    changed = next((key for key, is_same in zip(keys, same, strict=True) if not is_same), None)
    if changed is None and not file.consolidated and file.listing is not None:
        # Where it could be listed once and cannot any more, that is the error.
        return None if listing_digest(await transport.list()) == file.listing else _LISTING
    return changed


def _is_worth_asking(file: KeptFile, key: str) -> bool:
    # A bucket that may not be listed refuses the one of two documents that is not there.
    return key not in CONSOLIDATED or key in file.documents


async def _is_same(file: KeptFile, key: str, transport: Transport) -> bool:
    kept = file.objects[key]
    if transport.conditional and kept.etag is not None and _ENTITY_TAG.fullmatch(kept.etag):
        found = await transport.get_unless(key, kept.etag)
    else:
        found = await transport.get(key)
    if isinstance(found, Unchanged):
        return True
    if (None if found is None else found.data) != kept.data:
        return False
    # An object that was stored anew may have another ETag and be the same.
    if found is not None and found.etag != kept.etag:
        file.objects[key] = KeptObject(kept.data, found.etag)
    return True
