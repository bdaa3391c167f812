"""Legacy objects are read as what the newest release makes of them."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from hdmf_zarr.utils import ZarrReference
from hypothesis import given
from hypothesis import strategies as st
from zarr.storage import LocalStore, StorePath

from intake_nwbzarr.errors import LegacyObjectError
from intake_nwbzarr.hierarchy.zarr2.metadata import translate_array
from intake_nwbzarr.hierarchy.zarr2.objects import LegacyObjectsCodec, decode_legacy_objects
from tests.conftest import KINDS, RELEASES
from tests.hierarchy.zarr2 import PATH, PICKLE, Zarr2Array, objects

Corpus = Callable[[str, str], Path]
PROTOCOLS = pytest.mark.parametrize("protocol", range(6))


def configuration(count: int, codec: str = "pickle", content: Any = "text") -> dict[str, Any]:
    return {
        "array": "units/label",
        "shape": [count],
        "order": "C",
        "object_codec": codec,
        "compressors": [],
        "content": content,
    }


def decode(data: bytes, count: int, codec: str = "pickle", content: Any = "text") -> Any:
    return decode_legacy_objects(data, configuration(count, codec, content))


# Honest data


@given(protocol=st.integers(0, 5), texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_any_text_comes_back_from_any_protocol(protocol, texts):
    assert decode(pickle.dumps(objects(texts), protocol), len(texts)) == texts


@given(
    protocol=st.integers(0, 5),
    values=st.lists(
        st.one_of(
            st.text("aé"), st.integers(), st.booleans(), st.floats(), st.none(), st.text("aé").map(str.encode)
        )
    ),
)
def test_everything_else_is_text_as_the_newest_release_writes_it(protocol, values):
    # What hdmf-zarr 0.14 does on conversion.
    expected = np.array(objects(values), dtype=np.dtypes.StringDType()).tolist()
    assert decode(pickle.dumps(objects(values), protocol), len(values)) == expected


@PROTOCOLS
def test_numpy_values_among_objects_are_text(protocol):
    values = [np.float32(0.1), np.int64(-3), np.bool_(True), np.str_("né"), np.uint8(200), np.bytes_(b"ab")]
    decoded = decode(pickle.dumps(objects(values), protocol), len(values))
    assert decoded == ["0.1", "-3", "True", "né", "200", "ab"]


@PROTOCOLS
@pytest.mark.parametrize("dtype", ["<U4", ">U4", "S4", "<i4", ">i4", "f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_plain_elements_are_text(protocol, dtype, order):
    values = np.asarray(np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype), order=order)  # type: ignore[call-overload]
    expected = [item.decode() if isinstance(item, bytes) else str(item) for item in values.ravel().tolist()]
    assert decode(pickle.dumps(values, protocol), 6) == expected


def reference(path: str, source: str = ".", **ids: Any) -> ZarrReference:
    made = ZarrReference(source=source, path=path)
    made.update(ids)
    return made


REFERENCES = [
    reference("/units"),
    reference("/acquisition/æ", object_id="1", source_object_id=None),
    reference("/raw", source="../raw.nwb.zarr"),
    0,
    None,
]
READ_AS = ["/units", "/acquisition/æ", json.dumps({"source": "../raw.nwb.zarr", "path": "/raw"}), "", ""]


@PROTOCOLS
@pytest.mark.parametrize("chunks", [(5,), (2,)])
def test_references_are_read_as_paths(protocol, chunks):
    stored = Zarr2Array(
        objects(REFERENCES),
        chunks=chunks,
        filters=(numcodecs.Pickle(protocol),),
        compressor=numcodecs.Blosc(),
        attributes={"zarr_dtype": "object"},
    )
    assert stored.node.is_reference
    assert stored.read().tolist() == READ_AS


def test_references_stored_as_json_are_read_as_paths():
    values = [dict(value) if value else value for value in REFERENCES]
    stored = Zarr2Array(objects(values), filters=(numcodecs.JSON(),), attributes={"zarr_dtype": "object"})
    assert stored.read().tolist() == READ_AS


FIELDS = [("start", "<i4"), ("gain", "<f8"), ("series", "O"), ("label", "O")]
DECLARED = [
    {"name": "start", "dtype": "int32"},
    {"name": "gain", "dtype": "float64"},
    {"name": "series", "dtype": "object"},
    {"name": "label", "dtype": "str"},
]
ROWS = [
    (1, 0.5, reference("/a"), "one"),
    (-2, float("inf"), reference("/b"), ""),
    (3, 2.0, reference("/c"), "né"),
]
ROWS_READ = [(1, 0.5, "/a", "one"), (-2, float("inf"), "/b", ""), (3, 2.0, "/c", "né")]


@PROTOCOLS
@pytest.mark.parametrize("chunks", [(3,), (2,)])
def test_compounds_with_references_are_read(protocol, chunks):
    stored = Zarr2Array(
        np.array(ROWS, FIELDS),
        chunks=chunks,
        filters=(numcodecs.Pickle(protocol),),
        compressor=numcodecs.Blosc(),
        fill_value="gAVLAC4=",
        attributes={"zarr_dtype": DECLARED},
    )
    assert stored.node.reference_fields == ("series",)
    assert stored.read().tolist() == ROWS_READ
    assert stored.read().dtype["series"] == "<U512"


@PROTOCOLS
def test_compounds_written_as_lists_are_read(protocol):
    # As hdmf-zarr 0.2 and 0.3 wrote them; beyond the end of the array stands the fill value.
    rows = objects([list(row) for row in ROWS])
    stored = Zarr2Array(
        rows, chunks=(2,), filters=(numcodecs.Pickle(protocol),), attributes={"zarr_dtype": DECLARED}
    )
    assert stored.read().tolist() == ROWS_READ


def test_missing_chunks_of_compounds_are_zeros():
    stored = Zarr2Array(
        np.array(ROWS, FIELDS),
        chunks=(1,),
        filters=(PICKLE,),
        fill_value="gAVLAC4=",
        attributes={"zarr_dtype": DECLARED},
        missing=("1",),
    )
    assert stored.read().tolist() == [ROWS_READ[0], (0, 0.0, "", ""), ROWS_READ[2]]


def test_one_field_is_read_without_the_width_of_the_others():
    content = translate_array(PATH, compound().zarray, {"zarr_dtype": DECLARED}).metadata["codecs"][1]
    columns = decode_legacy_objects(pickle.dumps(np.array(ROWS, FIELDS)), content["configuration"])
    assert isinstance(columns, dict)
    assert columns["series"] == ["/a", "/b", "/c"]
    assert columns["label"] == ["one", "", "né"]
    assert np.asarray(columns["start"]).dtype == "<i4"
    assert np.asarray(columns["gain"]).tolist() == [0.5, np.inf, 2.0]


def compound(rows: list[Any] = ROWS) -> Zarr2Array:
    return Zarr2Array(
        np.array(rows, FIELDS),
        filters=(PICKLE,),
        fill_value="gAVLAC4=",
        attributes={"zarr_dtype": DECLARED},
    )


def test_text_too_long_for_a_compound_is_refused_and_never_cut():
    stored = compound([(1, 0.5, reference("/" + "x" * 600), "")])
    with pytest.raises(
        LegacyObjectError, match=r"'group/data' contains text of 601 characters in its field 'series'"
    ):
        stored.read()
    columns = decode_legacy_objects(stored.stored["0"], stored.node.metadata["codecs"][1]["configuration"])
    assert columns["series"] == ["/" + "x" * 600]
    assert compound([(1, 0.5, reference("/" + "x" * 511), "")]).read()["series"][0] == "/" + "x" * 511


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", RELEASES[:-1])
def test_every_pickle_of_the_corpus_is_read_as_the_newest_release_wrote_it(
    kind: str, release: str, corpus_dir: Corpus
) -> None:
    old, new = corpus_dir(kind, release), corpus_dir(kind, "0.14.0")
    documents = json.loads((new / "zarr.json").read_bytes())["consolidated_metadata"]["metadata"]
    pickled = 0
    for found in old.rglob(".zarray"):
        zarray = json.loads(found.read_bytes())
        path = found.parent.relative_to(old).as_posix()
        if (zarray["filters"] or [{}])[0].get("id") == "pickle":
            pickled += 1
            node = translate_array(path, zarray, json.loads(found.with_name(".zattrs").read_bytes()))
            read = zarr.Array.from_dict(StorePath(LocalStore(old), path), dict(node.metadata))[...]
            expected = zarr.Array.from_dict(StorePath(LocalStore(new), path), documents[path])[...]
            np.testing.assert_array_equal(read, expected)
    assert pickled == {"ecephys": 3, "icephys": 3, "ophys": 0}[kind]


def test_importing_the_codec_imports_neither_pynwb_nor_hdmf():
    script = (
        "import sys, intake_nwbzarr.hierarchy.zarr2.objects\n"
        "assert not {'pynwb', 'hdmf', 'hdmf_zarr', 'xarray', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_large_chunk_leaves_the_event_loop_free():
    """While 200,000 strings are decoded, the loop that asked for them keeps turning."""
    import asyncio

    from zarr.buffer import default_buffer_prototype
    from zarr.core.array_spec import ArrayConfig, ArraySpec
    from zarr.core.dtype import VariableLengthUTF8

    count = 200_000
    data = pickle.dumps(objects([f"unit {i}" for i in range(count)]))
    prototype = default_buffer_prototype()
    spec = ArraySpec((count,), VariableLengthUTF8(), "", ArrayConfig("C", True), prototype)
    codec = LegacyObjectsCodec(configuration(count))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async def read() -> Any:
        turning = asyncio.create_task(turn())
        await asyncio.sleep(0)
        decoded = await codec.decode([(prototype.buffer.from_bytes(data), spec)])
        turning.cancel()
        return list(decoded)

    [decoded] = asyncio.run(read())
    assert numcodecs.VLenUTF8().decode(decoded.to_bytes())[-1] == "unit 199999"
    assert turns > 5


def test_the_codec_only_reads():
    array = Zarr2Array(objects(["a"]), filters=(PICKLE,)).open()
    with pytest.raises(
        LegacyObjectError, match="'group/data' is stored as Zarr 2 objects, which can only be read"
    ):
        array[:] = np.array(["b"])


def test_the_codec_survives_its_own_document():
    document = Zarr2Array(objects(["a"]), filters=(PICKLE,)).node.metadata["codecs"][1]
    assert LegacyObjectsCodec.from_dict(document).to_dict() == document
    json.dumps(document)
