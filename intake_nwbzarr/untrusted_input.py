"""Bounds on what is read from others: limits on sizes, counts and depths, and checks of paths.

A session or a server may be damaged or malicious. Whatever is received, decompressed or decoded has a bound
here, far above what real sessions need. What a user may tune is in `limits.py`.
"""

from __future__ import annotations

from typing import Final

from intake_nwbzarr.errors import UnsafePathError

MIB: Final = 2**20

# Stored objects and responses
LARGEST_OBJECT: Final = 2 * 2**30
"""Bytes of one stored object, unless a caller allows others."""

LONGEST_KEY: Final = 1024
"""Characters of a key: what S3 allows; hardly any other storage allows more."""

LONGEST_HEADER: Final = 16 * 2**10
"""Bytes of one response header; aiohttp accepts 128 of them."""

LARGEST_ERROR: Final = 64 * 2**10
"""Bytes of an error response that are read, for the error code in it."""

MOST_REDIRECTS: Final = 3
"""Redirects of one request; a server may redirect without end."""

# Listings
LARGEST_PAGE: Final = 32 * MIB
"""Bytes of one page of a listing; 1,000 keys of the longest kind take 3 MB."""

DEEPEST_PAGE: Final = 8
"""XML elements of a page inside one another; S3 has at most four: ListBucketResult/Contents/Owner/ID."""

MOST_PAGES: Final = 20_000
"""Pages of one listing; a page usually has 1,000 keys."""

MOST_KEYS: Final = 4 * 10**6
"""Keys and folders of one listing."""

MOST_EMPTY: Final = 100
"""Consecutive pages without anything new, after which a listing counts as endless."""

# Zip archives
LARGEST_DIRECTORY: Final = 256 * MIB
"""Bytes of a zip file's central directory."""

LARGEST_RATIO: Final = 200
"""How far a large zip member may expand; deflate reaches about 1,030, real members far less."""

SMALL_MEMBER: Final = 64 * MIB
"""Bytes up to which a zip member may expand by any ratio: it may be all zeros."""

# HDF5 files
MOST_RECEIVED: Final = 1024 * MIB
"""Bytes of an HDF5 file's metadata that are received; 8,000 objects take 50 MB."""

MOST_ROUNDS: Final = 10_000
"""Times that what an HDF5 parser waits for is fetched; real files take about ten."""

DEEPEST_TREE: Final = 32
"""Levels of a B-tree or fractal heap; a B-tree of 10**18 entries has about twelve."""

MOST_MEMBERS: Final = 4096
"""Fields of a compound type, or names of an enumeration."""

MOST_CONTINUATIONS: Final = 10_000
"""Blocks of one object header."""

MOST_MESSAGES: Final = 2**16
"""Messages of one object header, where version 1 of the format counts up to 65,535."""

LARGEST_USER_BLOCK: Final = 2**20
"""Bytes before an HDF5 file begins, which must be a power of two from 512 on."""

MOST_FILTERS: Final = 32
"""Filters of a dataset: what HDF5 allows."""

LARGEST_ATTRIBUTE: Final = 64 * MIB
"""Bytes of one attribute's value."""

MOST_DECODED: Final = 256 * MIB
"""Bytes of all attributes and links of an HDF5 file when decoded, as in a metadata document."""

# Snapshots and downloads
LARGEST_SNAPSHOT_INDEX: Final = 64 * MIB
"""Bytes of the index of a snapshot file."""

LARGEST_SNAPSHOT_SESSION: Final = 512 * MIB
"""Bytes of one session in a snapshot file, decompressed."""

LARGEST_SNAPSHOT_OBJECT: Final = 64 * MIB
"""Bytes of an array's object in a snapshot; larger ones are read from the session each time."""

MOST_OBJECTS: Final = 2 * 10**6
"""Stored objects of a session that is downloaded."""

# Tables of sessions
LARGEST_TABLE: Final = 16 * 2**30
"""Bytes of a table of sessions; a hundred thousand sessions without snapshots take 100 MB."""

LARGEST_LIST_OF_LOCATIONS: Final = 64 * MIB
"""Bytes of a text file of locations; a million of them take 60 MB."""

DEEPEST_SCAN: Final = 16
"""Folders inside one another that a scan lists; sessions are usually three deep."""

MOST_SCANNED: Final = 10**6
"""Folders, and sessions, of one prefix that is scanned."""

MOST_OBJECT_ROWS: Final = 200_000
"""Neurodata objects of one session in the table of objects; real ones have at most some thousands."""

LONGEST_CELL: Final = 10_000
"""Characters of one text in a table of sessions, and entries of one list; longer ones are cut."""

LARGEST_COLUMN: Final = 16 * MIB
"""Decoded bytes of one array from which a column of a table of sessions is filled."""

LARGEST_SNAPSHOT_CELL: Final = 16 * MIB
"""Bytes of a session's snapshot in a table of sessions; usual ones have 50 kB."""

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
"""Paths that stale consolidated metadata may omit, and that are therefore requested."""

MOST_COMPARED: Final = 2000
"""Names of a file that are compared with a missing one, for a suggestion."""

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
"""Bytes of a chunk of Python objects, stored, decompressed or encoded again: no metadata declare its size."""

LEAST_TEXT: Final = 16 * MIB
"""Bytes that a chunk of strings or Python objects may always have when decompressed."""

TEXT_PER_VALUE: Final = 64 * 2**10
"""Further bytes for each of its values; longer texts are stored one in a chunk, within LEAST_TEXT."""

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


def safe_path(path: str, location: object) -> str:
    """Return a path inside the file at a location, checked, without its leading and trailing slash."""
    # Empty, `.` and `..` parts, backslashes, NUL, and percent-encoded ones could lead out of the file on some
    # store. One leading slash means the file's root.
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
            f"{path!r:.400} is not a valid path in {location}: it could lead out of the file.",
            location=location,
            path=path,
            next_step="Unless you passed it, the file is damaged or malicious.",
        )
    if len(parts) > DEEPEST_PATH:
        raise UnsafePathError(
            f"{path!r:.400} in {location} is a path of {len(parts)} parts; {DEEPEST_PATH} are allowed.",
            location=location,
            path=path,
            found=len(parts),
            expected=DEEPEST_PATH,
        )
    return stripped


def printable(text: str, keep: str = "\n") -> str:
    """Return text whose control characters, which a terminal obeys, are spaces; line breaks stay."""
    # Surrogates are not printable either.
    return "".join(each if each.isprintable() or each in keep else " " for each in text)


def printable_line(text: str, longest: int) -> str:
    """Return text as one line without control characters, cut if it is longer."""
    line = printable(text[: longest + 1], keep="")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
