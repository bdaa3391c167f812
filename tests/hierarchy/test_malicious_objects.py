"""Legacy objects that are damaged or malicious are refused by name, and nothing in them is run."""

import contextlib
import pickle
import struct
import subprocess
import sys
from pathlib import Path

import numcodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr.errors import ChunkError, LegacyObjectError, LimitError
from intake_nwbzarr.untrusted_input import LARGEST_OBJECT_CHUNK
from tests.hierarchy.malicious_pickles import BOMBS, CRASHERS, RESERVATION, UNUSUAL, runners
from tests.hierarchy.test_objects import FIELDS, ROWS, compound, decode
from tests.hierarchy.zarr2 import PICKLE, Zarr2Array, objects


@given(protocol=st.integers(0, 5), data=st.data())
def test_a_truncated_pickle_is_refused(protocol, data):
    whole = pickle.dumps(objects(["first", "second", 3]), protocol)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(LegacyObjectError, match="A chunk of the array 'units/label'"):
        decode(whole[:end], 3)


@pytest.mark.parametrize("codec", ["pickle", "json2", "vlen-utf8", "vlen-bytes"])
@given(data=st.binary())
def test_random_bytes_are_refused(codec, data):
    with contextlib.suppress(LegacyObjectError):
        assert len(decode(data, 3, codec)) == 3


@given(protocol=st.integers(0, 5), position=st.integers(0, 10_000), value=st.binary(min_size=1, max_size=9))
def test_a_damaged_pickle_is_read_or_refused(protocol, position, value):
    whole = bytearray(pickle.dumps(np.array(ROWS, FIELDS), protocol))
    position %= len(whole)
    whole[position : position + len(value)] = value
    content = compound().node.metadata["codecs"][1]["configuration"]["content"]
    with contextlib.suppress(LegacyObjectError):
        columns = decode(bytes(whole), 3, content=content)
        assert [len(column) for column in columns.values()] == [3] * 4


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(objects(["a"])) + b"x", "1 bytes follow its end"),
        (pickle.dumps(["a"]), "a pickled list, not an array"),
        (pickle.dumps(objects(["a", "b"])), "its shape does not match the 1 declared elements"),
        (pickle.dumps(objects([["a"]])), "it contains a list"),
        (pickle.dumps(objects([{"a": 1}])), "it contains a dict"),
        (pickle.dumps(objects([b"\xff"])), "can't decode byte"),
        (pickle.dumps(objects(["\ud800"])), None),
        (pickle.dumps(objects([objects(["a"])])), "it contains a ArrayRecord"),
        (pickle.dumps(objects([len])), "it names builtins.len"),
        (pickle.dumps(objects([{1, 2}])), "it uses the opcode EMPTY_SET"),
        (pickle.dumps(objects([np.datetime64(1, "s")])), "elements of the type 'M8'"),
        (pickle.dumps(objects([Path()])), "it names pathlib"),
        (b"]\x94h\x00a.", "a pickled list"),
        (b"\x8c\x05abc.", "ends in the middle"),
        (b"(" * 100 + b".", "nested deeper than 64"),
        (b"N.", "a pickled NoneType"),
    ],
)
def test_what_is_no_array_of_strings_is_named(data, message):
    if message is None:  # found when it is encoded for zarr
        with pytest.raises(LegacyObjectError, match="not valid Unicode"):
            Zarr2Array(objects(["\ud800"]), filters=(PICKLE,)).read()
        return
    with pytest.raises(LegacyObjectError, match=f"(?s)A chunk of the array 'units/label'.*{message}"):
        decode(data, 1)


@pytest.mark.parametrize(
    ("data", "codec", "message"),
    [
        (b"[", "json2", "Expecting value"),
        (b"[]", "json2", "not enough values"),
        (b'["a", "b", "|O", [3]]', "json2", "not nested like its shape"),
        (b'["a", "b", "|O", [1, 3]]', "json2", "not nested like its shape"),
        (b'["a", "b", ["c"], "|O", [3]]', "json2", "it contains a list"),
        (b"[" * 100_000, "json2", "100000 JSON values"),
        (b"[" + b"[]," * 10_000 + b'"|O", [3]]', "json2", "JSON values, but at most 1192"),
        (b"", "vlen-utf8", "0 bytes, too few"),
        (struct.pack("<I", 2**31 - 1), "vlen-utf8", "2147483647 elements, but 3 are declared"),
        (struct.pack("<II", 3, 2**31), "vlen-utf8", "corrupt"),
        (struct.pack("<I", 2**31 - 1), "vlen-bytes", "2147483647 elements, but 3 are declared"),
        (b"", "msgpack2", "encoded with 'msgpack2'"),
    ],
)
def test_damaged_chunks_of_other_codecs_are_named(data, codec, message):
    with pytest.raises(LegacyObjectError, match=f"A chunk of the array 'units/label'.*({message})"):
        decode(data, 3, codec)


def test_fields_other_than_declared_are_refused():
    content = compound().node.metadata["codecs"][1]["configuration"]["content"]
    other_names = np.array(
        [(1, 0.5, None, "")], [("x", "<i4"), ("gain", "<f8"), ("series", "O"), ("label", "O")]
    )
    other_type = np.array(
        [(1, 0.5, None, "")], [("start", "<i8"), ("gain", "<f8"), ("series", "O"), ("label", "O")]
    )
    plain = np.array(
        [(1, 0.5, 1, "")], [("start", "<i4"), ("gain", "<f8"), ("series", "<i4"), ("label", "O")]
    )
    short = objects([[1, 0.5, "/a"]])
    wrong = objects([["one", 0.5, "/a", "b"]])
    large = objects([[2**40, 0.5, "/a", "b"]])
    for values, message in (
        (other_names, "its fields are not the declared ones"),
        (other_type, "field 'start' is of the type 'i8', not int32"),
        (plain, "field 'series' is of the type 'i4', not objects"),
        (short, "a row is a list, but one of 4 fields"),
        (wrong, "a field of int32 contains another type"),
        (large, "out of bounds"),
    ):
        with pytest.raises(LegacyObjectError, match=message):
            decode(pickle.dumps(values), 1, content=content)


def test_an_opcode_budget_ends_a_stream_that_repeats_itself():
    with pytest.raises(LegacyObjectError, match="it has more than 1064 opcodes"):
        decode(b"N0" * 10**6 + b".", 1)


@pytest.mark.slow
def test_text_meant_many_times_over_is_limited():
    long = "x" * 2**20
    data = pickle.dumps(objects([long] * 300))
    with pytest.raises(LimitError, match=f"{LARGEST_OBJECT_CHUNK} are allowed"):
        Zarr2Array(objects([long] * 300), filters=(PICKLE,), compressor=numcodecs.Zstd()).read()
    assert len(data) < 2**21
    with pytest.raises(LimitError, match="takes more than"):
        decode(pickle.dumps(objects([long.encode()] * 1100)), 1100)


def test_more_objects_than_are_read_at_once_are_refused():
    with pytest.raises(LimitError, match="declared to have 1000000000000 objects"):
        decode(pickle.dumps(np.zeros(1, "U1")), 10**12)


def test_a_compressed_chunk_that_is_damaged_is_a_chunk_error():
    stored = Zarr2Array(objects(["a"]), filters=(PICKLE,), compressor=numcodecs.Zstd())
    stored.stored["0"] = stored.stored["0"][:-3]
    with pytest.raises(ChunkError, match="A chunk of the array 'group/data' cannot be decompressed"):
        stored.read()


def test_malicious_chunks_are_refused_by_name_and_run_nothing(tmp_path):
    """In a process with little memory, to see crashes, allocations and endless loops."""
    marker = tmp_path / "ran"
    payloads = {**runners(str(marker)), **CRASHERS, **BOMBS, **UNUSUAL}
    folder = tmp_path / "payloads"
    folder.mkdir()
    for name, payload in payloads.items():
        (folder / name).write_bytes(payload)
    script = (
        "import resource, sys, time\n"
        "from pathlib import Path\n"
        "from intake_nwbzarr.errors import LegacyObjectError\n"
        "from tests.hierarchy.zarr2 import PICKLE, Zarr2Array, objects\n"
        "stored = Zarr2Array(objects(['a']), filters=(PICKLE,))\n"
        "stored.read()\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "for path in Path(sys.argv[1]).iterdir():\n"
        "    stored.stored['0'] = path.read_bytes()\n"
        "    started = time.process_time()\n"
        "    try:\n"
        "        print(path.name, 'was read as', stored.read())\n"
        "    except LegacyObjectError as error:\n"
        "        assert \"the array 'group/data'\" in str(error) and len(str(error)) < 500, str(error)\n"
        "        assert time.process_time() - started < 5\n"
        "        print(path.name, flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    refused = set(done.stdout.splitlines())
    assert refused == payloads.keys(), (done.returncode, payloads.keys() ^ refused, done.stderr[-2000:])
    assert not marker.exists()


def test_what_is_refused_does_run_when_it_is_unpickled(tmp_path):
    """The test above tests what it claims to."""
    marker = tmp_path / "ran"
    for name, payload in runners(str(marker)).items():
        pickle.loads(payload)
        assert marker.exists(), name
        marker.unlink()


@pytest.mark.parametrize("name", CRASHERS)
def test_what_is_refused_does_crash_when_it_is_unpickled(name, tmp_path):
    """An allow-list of names would not do: these are made of those names alone."""
    (tmp_path / "payload").write_bytes(CRASHERS[name])
    script = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "payload")],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode < 0, done.stderr
    with pytest.raises(LegacyObjectError, match=r"calls numpy\.ndarray|elements of the type 'V8'"):
        decode(CRASHERS[name], 1)


def test_the_reservation_is_short_and_refused():
    assert len(RESERVATION) < 100
    with pytest.raises(LegacyObjectError, match="it is a pickled ArrayRecord"):
        decode(RESERVATION, 1)
