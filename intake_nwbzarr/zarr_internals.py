"""The private parts of zarr that this package uses, in one place.

Codecs and chunk key encodings can be registered publicly in zarr 3.4, but the class of an argument of codecs
and the base class of encodings are private.
"""

from zarr.buffer import default_buffer_prototype
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.chunk_key_encodings import ChunkKeyEncoding
from zarr.dtype import UInt8

__all__ = ["ArraySpec", "ChunkKeyEncoding", "bytes_spec"]


def bytes_spec(size: int) -> ArraySpec:
    """Return the array specification of a chunk for a bytes-to-bytes codec: its number of bytes."""
    return ArraySpec((size,), UInt8(), 0, ArrayConfig("C", True), default_buffer_prototype())
