"""Bounds on what is read from others: sizes, counts and depths above which something is refused, and paths.

A session may be damaged or made to do harm. Whatever is received, decompressed, decoded or remembered on its
account has a bound here, far above what real sessions need. What a user may tune stands in `limits.py`.
"""

from __future__ import annotations

from typing import Final

from intake_nwbzarr.errors import UnsafePathError

MIB: Final = 2**20

# Stored objects and answers
LARGEST_OBJECT: Final = 2 * 2**30
"""Bytes of one stored object, unless a caller allows others."""

LONGEST_KEY: Final = 1024
"""Characters of a key: what S3 allows; hardly any other storage allows more."""

# Zip archives
LARGEST_DIRECTORY: Final = 256 * MIB
"""Bytes of a zip file's central directory."""

LARGEST_RATIO: Final = 200
"""How far a large zip member may expand; deflate reaches about 1,030, real members far less."""

SMALL_MEMBER: Final = 64 * MIB
"""Bytes up to which a zip member may expand by any ratio: it may be all zeros."""

# Snapshots and downloads
LARGEST_SNAPSHOT_INDEX: Final = 64 * MIB
"""Bytes of the index of a snapshot file."""

LARGEST_SNAPSHOT_SESSION: Final = 512 * MIB
"""Bytes of one session in a snapshot file, decompressed."""

MOST_OBJECTS: Final = 2 * 10**6
"""Stored objects of a session that is downloaded."""

# Metadata documents
LARGEST_DOCUMENT: Final = 256 * MIB
"""Bytes of a metadata document; the consolidated metadata of 8,000 nodes take 8 MB."""

MOST_NODES: Final = 10**6
"""Groups and arrays of one file."""

DEEPEST_PATH: Final = 64
"""Parts of a path inside a file."""

MOST_LINK_HOPS: Final = 32
"""Links that are followed one after another."""

MOST_LOOKED_UP: Final = 100
"""Paths that consolidated metadata do not list, requested all the same: links may lead nowhere."""

# Array metadata
LARGEST_LENGTH: Final = 2**63 - 1
"""The longest axis, and the most elements, that NumPy and xarray can count."""

MOST_DIMENSIONS: Final = 32
"""Dimensions of an array: what NumPy 1 allowed, and zarr-python still writes."""

LARGEST_ELEMENT: Final = 2**31 - 1
"""Bytes of one element of fixed size, as NumPy counts them."""

# Decompression and decoding
LARGEST_LZMA_DICTIONARY: Final = 256 * MIB
"""Bytes of an LZMA dictionary; the strongest preset needs 65 MiB."""

MOST_STREAMS: Final = 2**16
"""gzip members, or streams of another kind, in one chunk; nearly all chunks have one."""

LARGEST_OBJECT_CHUNK: Final = 2**30
"""Bytes of a chunk of Python objects, stored, decompressed or encoded anew: no metadata declare its size."""

MOST_OPCODES: Final = 50_000_000
"""Opcodes of one pickle."""

DEEPEST_PICKLE: Final = 64
"""Containers of a pickle inside one another."""

MOST_CHUNKS: Final = 10**7
"""Chunks that one read may touch; each takes about a kilobyte to keep account of."""

# Mapping
LARGEST_AT_OPEN: Final = 2 * 2**30
"""Bytes of one array (ids, regions, scalars) that is read when a session is opened."""

MOST_CHUNKS_AT_OPEN: Final = 10**6
"""Chunks of an array that is read when a session is opened; real ones have at most thousands."""

LONGEST_ATTRIBUTE: Final = 1000
"""Elements of a list that becomes an attribute; longer lists are data, not description."""

LONGEST_WAVEFORM: Final = 10**6
"""Samples of one waveform; real ones have a few hundred."""

MOST_DECODED_TIMES: Final = 10_000_000
"""Times of one series that are decoded to dates, which are held in memory: 80 MB."""


def safe_path(path: str, *, where: str) -> str:
    """A path from the data, split and checked; without its leading and trailing slash.

    Parameters
    ----------
    path
        As found in a document, a listing or a reference. One leading slash means the file's root.
    where
        What holds it, for the error.

    Raises
    ------
    UnsafePathError
        For empty, ``.`` and ``..`` parts, backslashes, NUL, percent-encoded dots or slashes, and depths
        beyond 64: such a name could lead out of the file on some store.
    """
    stripped = path.removeprefix("/").removesuffix("/")
    if stripped == "":
        return ""
    parts = stripped.split("/")
    lowered = stripped.lower()
    if (
        any(part in {"", ".", ".."} for part in parts)
        or any(character in stripped for character in ("\\", "\0"))
        or any(code in lowered for code in ("%2e", "%2f", "%5c", "%00"))
    ):
        raise UnsafePathError(
            f"{where} names {path!r}, which could lead out of the file; the file is damaged or hostile."
        )
    if len(parts) > DEEPEST_PATH:
        raise UnsafePathError(f"{where} names a path of {len(parts)} parts; {DEEPEST_PATH} are allowed.")
    return stripped
