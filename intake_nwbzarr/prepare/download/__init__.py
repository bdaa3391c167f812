"""Downloading a whole session: resumable, verified, and the folder never half of one.

============  ==========================================================================================
`session`     the order of things: what there is, what is kept, what is fetched, verified, renamed
`inventory`   what objects a session has: by listing it, or by its consolidated metadata
`record`      what was fetched, with its size, ETag and checksum: a file of the download itself
`workspace`   the folders of a download, and how one takes another's place
`objects`     one object, fetched and written
`report`      how far it is, and what it did
============  ==========================================================================================
"""

from intake_nwbzarr.prepare.download.report import Download, Progress
from intake_nwbzarr.prepare.download.session import download

__all__ = ["Download", "Progress", "download"]
