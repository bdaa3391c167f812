import bz2
import contextlib
import gzip
import lzma
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs import BZ2, LZ4, LZMA, Blosc, GZip, Zlib, Zstd

from intake_nwbzarr.errors import ChunkError, LimitError, MetadataError
from intake_nwbzarr.hierarchy.decompress import COMPRESSORS, decompress

WHERE = "The chunk 'c/0' of the array 'data'"
DATA = np.arange(5000, dtype="<i4").tobytes()

ENCODERS = {
    "blosc": Blosc("lz4", 5, Blosc.SHUFFLE),
    "zstd": Zstd(3),
    "gzip": GZip(3),
    "numcodecs.blosc": Blosc("zstd", 1, Blosc.BITSHUFFLE),
    "numcodecs.zstd": Zstd(1),
    "numcodecs.gzip": GZip(1),
    "numcodecs.lz4": LZ4(),
    "numcodecs.zlib": Zlib(3),
    "numcodecs.bz2": BZ2(3),
    "numcodecs.lzma": LZMA(),
}
EACH = pytest.mark.parametrize("name", sorted(ENCODERS))


def zstd_frame_without_size(payload: bytes) -> bytes:
    # What streaming writers produce: window descriptor, no content size, one raw block.
    return b"\x28\xb5\x2f\xfd\x00\x58" + (len(payload) << 3 | 1).to_bytes(3, "little") + payload


def test_there_is_a_test_for_every_compressor():
    assert set(ENCODERS) == COMPRESSORS


@EACH
def test_what_was_compressed_comes_back(name):
    encoder = ENCODERS[name]
    codec = {"name": name, "configuration": {}}
    assert decompress(codec, encoder.encode(DATA), len(DATA), where=WHERE) == DATA
    assert decompress(name, encoder.encode(DATA), len(DATA) + 1000, where=WHERE) == DATA


@EACH
@given(data=st.binary(min_size=1))
def test_any_bytes_come_back(name, data):
    assert decompress(name, ENCODERS[name].encode(data), len(data), where=WHERE) == data


@EACH
def test_one_byte_more_than_allowed_is_refused(name):
    with pytest.raises(LimitError, match=r"The chunk 'c/0' of the array 'data' expands to .*19999"):
        decompress(name, ENCODERS[name].encode(DATA), len(DATA) - 1, where=WHERE)


@EACH
def test_a_truncated_chunk_is_named(name):
    encoded = bytes(ENCODERS[name].encode(DATA))
    for length in (0, 1, 3, 10, len(encoded) // 2, len(encoded) - 1):
        with pytest.raises(ChunkError, match="The chunk 'c/0' of the array 'data'"):
            decompress(name, encoded[:length], len(DATA), where=WHERE)


@EACH
@given(data=st.binary())
def test_random_bytes_raise_nothing_but_our_errors(name, data):
    with contextlib.suppress(ChunkError, LimitError):
        assert len(decompress(name, data, 100, where=WHERE)) <= 100


@EACH
@given(position=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_damaged_byte_raises_nothing_but_our_errors(name, position, value):
    encoded = bytearray(ENCODERS[name].encode(DATA))
    encoded[position % len(encoded)] = value
    with contextlib.suppress(ChunkError, LimitError):
        assert len(decompress(name, encoded, len(DATA), where=WHERE)) <= len(DATA)


def test_zstd_frames_that_declare_no_size_are_capped():
    frame = zstd_frame_without_size(b"hello")
    assert decompress("zstd", frame, 5, where=WHERE) == b"hello"
    assert decompress("zstd", frame, 500, where=WHERE) == b"hello"
    with pytest.raises(LimitError):
        decompress("zstd", frame, 4, where=WHERE)


def test_several_zstd_frames_are_one_chunk_and_are_counted_together():
    frames = Zstd().encode(b"abc" * 1000) + b"\x50\x2a\x4d\x18\x03\x00\x00\x00xyz" + Zstd().encode(b"def")
    assert decompress("zstd", frames, 3003, where=WHERE) == b"abc" * 1000 + b"def"
    with pytest.raises(LimitError, match="expands to 3003") as caught:
        decompress("zstd", frames, 3002, where=WHERE)
    assert (caught.value.found, caught.value.expected) == (3003, 3002)


def test_zstd_checksums_are_checked():
    encoded = bytearray(Zstd(3, checksum=True).encode(DATA))
    assert decompress("zstd", encoded, len(DATA), where=WHERE) == DATA
    encoded[-1] ^= 1
    with pytest.raises(ChunkError):
        decompress("zstd", encoded, len(DATA), where=WHERE)


def test_several_gzip_members_are_one_chunk():
    assert (
        decompress("gzip", gzip.compress(b"ab") + gzip.compress(b"cd") + b"\0\0", 4, where=WHERE) == b"abcd"
    )
    with pytest.raises(LimitError):
        decompress("gzip", gzip.compress(b"ab") + gzip.compress(b"cd"), 3, where=WHERE)


def test_an_lzma_chunk_is_read_as_its_configuration_says():
    raw = LZMA(format=3, filters=[{"id": 0x21, "preset": 3}])
    configuration = {"format": 3, "filters": [{"id": 0x21, "preset": 3}]}
    codec = {"name": "numcodecs.lzma", "configuration": configuration}
    assert decompress(codec, raw.encode(DATA), len(DATA), where=WHERE) == DATA
    codec = {
        "name": "numcodecs.lzma",
        "configuration": {"format": 3, "filters": [{"id": 0x21, "dict_size": 2**31}]},
    }
    with pytest.raises(LimitError, match="dictionary of 2147483648 bytes"):
        decompress(codec, raw.encode(DATA), len(DATA), where=WHERE)


def test_an_unknown_compressor_is_named():
    with pytest.raises(
        MetadataError, match=r"with 'numcodecs.brotli', which is not supported. Supported are blosc"
    ):
        decompress("numcodecs.brotli", b"", 1, where=WHERE)


def bomb(name: str) -> bytes:
    """64 MiB of zeros, or more, that claim to be a chunk of ten bytes."""
    four_gigabytes = struct.pack("<I", 2**32 - 1)
    if name.endswith("blosc"):
        return b"\x02\x01\x21\x01" + four_gigabytes * 2 + struct.pack("<I", 20) + b"abcd"
    if name.endswith("lz4"):
        return four_gigabytes + b"abcd"
    if name == "zstd":
        return b"\x28\xb5\x2f\xfd\xa0" + four_gigabytes + b"\x01\x00\x00"
    if name == "numcodecs.zstd":  # declares no size: 8192 blocks of one byte repeated 128 KiB times
        block = 2**17 << 3 | 2
        blocks = b"".join((block | (i == 8191)).to_bytes(3, "little") + b"z" for i in range(8192))
        return b"\x28\xb5\x2f\xfd\x00\x58" + blocks
    return bytes(ENCODERS[name].encode(bytes(2**26)))


def test_bombs_take_no_memory(tmp_path):
    for name in ENCODERS:
        (tmp_path / name).write_bytes(bomb(name))
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from intake_nwbzarr.hierarchy.decompress import decompress\n"
        "from intake_nwbzarr.errors import LimitError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 40 * 2**20,) * 2)\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    try:\n"
        "        decompress(path.name, path.read_bytes(), 10, where=f'The chunk {path.name}')\n"
        "    except LimitError as error:\n"
        "        print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, timeout=60, text=True, check=True
    )
    assert {line.split()[2] for line in done.stdout.splitlines()} == COMPRESSORS, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["gzip", "numcodecs.bz2", "numcodecs.lzma"])
def test_very_many_empty_streams_are_refused_in_time_that_grows_with_their_number(name):
    empty = {
        "gzip": gzip.compress(b""),
        "numcodecs.bz2": bz2.compress(b""),
        "numcodecs.lzma": lzma.compress(b""),
    }
    few = empty[name] * 100
    assert decompress(name, few, 8, where=WHERE) == b""
    assert decompress(name, few + ENCODERS[name].encode(b"abc"), 8, where=WHERE) == b"abc"
    begun = time.process_time()
    with pytest.raises(LimitError, match=r"more than 65,536 compressed streams"):
        decompress(name, empty[name] * 300_000, 8, where=WHERE)
    # Copying what is left after each of them would take minutes.
    assert time.process_time() - begun < 20


@pytest.mark.parametrize("name", ["gzip", "numcodecs.bz2", "numcodecs.lzma"])
def test_several_streams_with_padding_between_them_are_one_chunk(name):
    part = np.random.default_rng(1).bytes(100_000)
    data = ENCODERS[name].encode(part) + b"\0" * 5000 + ENCODERS[name].encode(part) + b"\0" * 7
    assert decompress(name, data, 200_000, where=WHERE) == part * 2
    with pytest.raises(LimitError):
        decompress(name, data, 199_999, where=WHERE)
    with pytest.raises(ChunkError):
        decompress(name, data[:-20], 200_000, where=WHERE)
