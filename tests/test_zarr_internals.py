"""The private parts of zarr: imported in one place, and still what they were."""

import inspect
import re
from pathlib import Path

import zarr
from zarr.abc.codec import BytesBytesCodec

import intake_nwbzarr
from intake_nwbzarr.zarr_internals import ArraySpec, ChunkKeyEncoding

PACKAGE = Path(intake_nwbzarr.__file__).parent


def test_no_other_module_imports_them() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(from|import) zarr\.core", path.read_text(), re.MULTILINE)
    }
    assert users == {"zarr_internals.py"}


def test_codecs_are_still_given_the_chunk_s_specification() -> None:
    assert "chunk_spec" in inspect.signature(BytesBytesCodec._decode_single).parameters
    assert {"shape", "dtype", "prototype"} <= set(ArraySpec.__dataclass_fields__)


def test_a_chunk_key_encoding_still_encodes_and_decodes(tmp_path: Path) -> None:
    assert ChunkKeyEncoding.__abstractmethods__ == {"encode_chunk_key", "decode_chunk_key"} or (
        ChunkKeyEncoding.__abstractmethods__ == {"encode_chunk_key"}
    )
    array = zarr.create_array(tmp_path / "a.zarr", shape=(4,), chunks=(2,), dtype="i2")
    assert isinstance(array.metadata.chunk_key_encoding, ChunkKeyEncoding)
    assert array.metadata.chunk_key_encoding.encode_chunk_key((1,)) == "c/1"
