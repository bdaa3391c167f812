"""Legacy object arrays: strings, references and compounds of every release, read field by field."""

import numpy as np
import pytest
import zarr
from zarr.storage import StorePath

from intake_nwbzarr.arrays import StoredArray, read_many
from intake_nwbzarr.errors import LegacyObjectError
from intake_nwbzarr.hierarchy.hierarchy import open_hierarchy
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from tests.arrays.stored_arrays import write_raw
from tests.conftest import KINDS

RELEASES = ("0.2.0", "0.11.0", "0.14.0")


def _arrays(folder):
    hierarchy = open_hierarchy(folder)
    nodes = (hierarchy[path] for path in hierarchy)
    return {node.path: StoredArray(hierarchy.file, node) for node in nodes if isinstance(node, ArrayNode)}


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", RELEASES)
def test_every_array_of_a_session_is_read_as_zarr_reads_it(corpus_dir, kind, release):
    folder = corpus_dir(kind, release)
    arrays = _arrays(folder)
    store = zarr.storage.LocalStore(folder, read_only=True)
    for (path, array), read in zip(arrays.items(), read_many(list(arrays.values())), strict=True):
        expected = np.asarray(zarr.Array.from_dict(StorePath(store, path), dict(array.node.metadata))[...])
        np.testing.assert_array_equal(
            read, expected.astype(object) if expected.dtype.kind == "T" else expected
        )
        assert read.dtype == array.dtype == array.node.dtype
        for name in array.dtype.names or ():
            np.testing.assert_array_equal(array.field(name).read(), expected[name])


@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_fields_of_a_compound_are_the_same_whatever_release_wrote_it(corpus_dir):
    for kind in KINDS:
        old, new = _arrays(corpus_dir(kind, "0.2.0")), _arrays(corpus_dir(kind, "0.14.0"))
        compounds = [path for path, array in new.items() if array.dtype.names and path in old]
        for path in compounds:
            assert old[path].dtype.names == new[path].dtype.names
            for field in new[path].dtype.names:
                first, second = old[path].field(field), new[path].field(field)
                assert first.dtype == second.dtype
                np.testing.assert_array_equal(first.read(), second.read())


def test_a_malicious_pickle_is_an_error_that_names_location_array_and_chunk(tmp_path):
    document = {
        "shape": [1],
        "data_type": "string",
        "fill_value": "",
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "codecs": [
            {"name": "vlen-utf8"},
            {
                "name": "nwbzarr.legacy_objects",
                "configuration": {
                    "array": "data",
                    "shape": [1],
                    "order": "C",
                    "object_codec": "pickle",
                    "compressors": [],
                    "content": "text",
                },
            },
        ],
    }
    stored = write_raw(tmp_path, document, {"0": b"cos\nsystem\n(S'true'\ntR."})
    with pytest.raises(LegacyObjectError) as caught:
        stored.read()
    for part in (f"file://{tmp_path}", "'data'", "'data/0'"):
        assert part in str(caught.value)
