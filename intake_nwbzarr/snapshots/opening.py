"""Opening from a snapshot: what it holds is compared with what is stored, or not, and then served."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import get_args

from intake_nwbzarr.arguments import choice
from intake_nwbzarr.errors import OptionError, SnapshotWarning, StaleSnapshotError, warn_caller
from intake_nwbzarr.hierarchy.documents import load_documents
from intake_nwbzarr.hierarchy.load import Hierarchy
from intake_nwbzarr.location import Location
from intake_nwbzarr.snapshots.archive import Snapshots, open_snapshots
from intake_nwbzarr.snapshots.checking import Verify, changed_since
from intake_nwbzarr.snapshots.records import KeptFile, KeptSession
from intake_nwbzarr.snapshots.serving import ServingTransport
from intake_nwbzarr.transport.requests import open_transport, run, standing_in


@dataclass
class Opening:
    """One opening from a snapshot.

    Parameters
    ----------
    snapshots
        The file.
    session
        What it holds of the session.
    location
        Where the session is.
    verify
        What is compared with what is stored.
    """

    snapshots: Snapshots
    session: KeptSession
    location: Location
    verify: Verify
    _serving: dict[Location, ServingTransport] = field(default_factory=dict)
    _unverifiable: bool = False

    @property
    def attributes(self) -> dict[str, str]:
        """What a Dataset says of the snapshot: nothing, where it has been compared with what is stored."""
        made = f"snapshot of {self.session.made}"
        if self.verify is False:
            return {"nwb_snapshot": f"not verified: {made}"}
        return {"nwb_snapshot": f"unverifiable: {made}"} if self._unverifiable else {}

    def reading(self) -> AbstractContextManager[None]:
        """While open, what is read in this thread is read from the snapshot, where that has it."""
        return standing_in(self.stand_in)

    def hierarchy(self) -> Hierarchy:
        """The session's hierarchy; to be called, and used for opening, within `reading`."""
        transport = open_transport(self.location)
        return Hierarchy(self.location, transport, run(load_documents(transport)))

    def stand_in(self, location: Location) -> ServingTransport | None:
        """What serves a file that the snapshot holds; it is compared the first time that it is met."""
        if location in self._serving:
            return self._serving[location]
        # The snapshot has no say in where a link leads: only a file that one does lead to is looked up.
        file = self.session.file(location.url)
        if file is None:
            return None
        self._check(file, location)
        return self._serving.setdefault(location, ServingTransport(location, file))

    def _check(self, file: KeptFile, location: Location) -> None:
        if self.verify is False:
            return
        changed = changed_since(file, location, self.verify)
        if changed is not None:
            add = " --add" if len(self.snapshots) > 1 else ""
            raise StaleSnapshotError(
                f"The snapshot {self.snapshots.path} of {self.location}, made {self.session.made}, is stale: "
                f"{changed!r} in {location} has changed since, or is gone. Make it anew with: "
                f"nwbzarr snapshot {self.location}{add} -o {self.snapshots.path}"
            )
        if not file.is_verifiable:
            self._unverifiable = True
            warn_caller(
                f"The snapshot {self.snapshots.path} of {location} cannot be compared with what is stored: "
                "it has neither consolidated metadata nor a listing with ETags. What is opened is wrong if "
                "it has changed since. Have it consolidated, or give verify=False to accept that.",
                SnapshotWarning,
            )


def opening(
    snapshot: str | os.PathLike[str] | Snapshots, location: Location, verify: Verify = "metadata"
) -> Opening:
    """Prepare to open a session from a snapshot.

    Parameters
    ----------
    snapshot
        The snapshot file.
    location
        Of the session.
    verify
        ``"metadata"``: one conditional GET for each metadata document. ``"all"``: for each object that the
        snapshot holds. False: nothing is compared, and nothing requested.

    Raises
    ------
    SnapshotError, NotInSnapshotError, LimitError
        When the snapshot is damaged, is of other sessions, or larger than allowed.
    OptionError
        When `verify` is anything else.
    """
    choice("verify", verify, get_args(Verify.__value__))
    if location.option("consolidated") is False:
        raise OptionError(
            f"consolidated=False reads the metadata of {location} as they are stored now, and snapshot= as "
            "they were; give one of them."
        )
    snapshots = open_snapshots(snapshot)
    return Opening(snapshots, snapshots.session(location.url), location, verify)
