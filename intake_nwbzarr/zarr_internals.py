"""The private parts of zarr that this package stands on, in one place.

Codecs and chunk key encodings can be registered publicly in zarr 3.4, but the class of an argument of codecs
and the base class of encodings are private.
"""

from zarr.core.array_spec import ArraySpec
from zarr.core.chunk_key_encodings import ChunkKeyEncoding

__all__ = ["ArraySpec", "ChunkKeyEncoding"]
