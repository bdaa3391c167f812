"""Default blocks: whole stored chunks, neither too many nor too large, and reading only what is selected."""

from math import ceil, prod

import dask
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from intake_nwbzarr import set_limits
from intake_nwbzarr.arrays import StoredArray, lazy_variable, preferred_chunks, scaled
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.open import StoredFile
from intake_nwbzarr.transport.request_log import track_requests
from tests.arrays.stored_arrays import write

MIB = 2**20
DIMS = ("time", "y", "x", "z")

REAL = [
    pytest.param((64_616_812, 384), (264_823, 1), "int16", id="a channel a chunk"),
    pytest.param((33_344, 512, 796), (16, 512, 796), "uint16", id="frames"),
    pytest.param((33_344, 512, 796), (1, 512, 796), "uint16", id="one frame a chunk"),
    pytest.param((20_000, 796, 512), (500, 64, 64), "uint16", id="tiles"),
    pytest.param((108_000_000, 384), (30_000, 64), "int16", id="an hour of a probe"),
    pytest.param((108_000_000, 384), (13_653, 64), "int16", id="chunks of hdmf-zarr"),
    pytest.param((93_650 * 350, 384), (350, 384), "int16", id="short chunks of all channels"),
    pytest.param((30_000_000, 384), (64 * 13_653, 64), "int16", id="shards"),
    pytest.param((30_000_000, 384), (64 * 1024, 384), "int16", id="shards of all channels"),
    pytest.param((1_000_000, 384), (1000, 1), "int16", id="a row that is 384 chunks"),
    pytest.param((179_136, 4400), (1, 11), "int64", id="single times"),
    pytest.param((3_000_000_000,), (1000,), "float64", id="one axis"),
    pytest.param((40_000_000, 16), (300_000, 7), "float64", id="chunks that do not fill the channels"),
    pytest.param((130_299_297, 152), (111_654, 2), "float32", id="a row of 65 MiB"),
    pytest.param((500, 3, 4000, 4000), (1, 1, 1000, 1000), "float32", id="four axes"),
    pytest.param((300, 2**25), (1, 2**20), "int16", id="few long rows"),
    pytest.param((800_000_000, 384), (30_000, 64), "int16", id="beyond 100 GB, by channels"),
    pytest.param((1_500_000_000, 384), (350, 384), "int16", id="beyond 100 GB, all channels"),
]


AS_READ = {
    "stored": lambda array: array,
    "float64": lambda array: scaled(array, 2.34e-6),
    "float32": lambda array: scaled(array, 2.34e-6, dtype="float32"),
}


def described(shape, chunks, dtype="int16", parts=None):
    """An array that is nowhere stored, in shards where they have parts."""
    inside = {"name": "sharding_indexed", "configuration": {"chunk_shape": list(parts or ())}}
    document = {
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "codecs": [{"name": "bytes"} if parts is None else inside],
    }
    return StoredArray(StoredFile(locate("/nowhere")), ArrayNode("data", document))


def tasks_of_means(array):
    """What dask makes of the means over everything, over the first axis, and over the others."""
    variable = lazy_variable(DIMS[: len(array.shape)], array)
    data = variable.chunk(variable.encoding["preferred_chunks"]).data
    means = {axes: data.mean(axis=axes or None) for axes in ((), (0,), tuple(range(1, data.ndim)))}
    return {axes: len(dask.optimize(mean)[0].__dask_graph__()) for axes, mean in means.items()}


def in_memory(array, widths=None):
    return prod(array.shape if widths is None else widths) * array.dtype.itemsize


@st.composite
def arrays(draw, largest_chunk=36 * MIB, least=1.0, most=3e11):
    """Arrays of one to three axes, decoded bytes up to `most`, in chunks that may split any axis."""
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "float64"]))
    itemsize = np.dtype(dtype).itemsize
    others = draw(st.lists(st.integers(1, 600), max_size=2))
    widths = [draw(st.one_of(st.just(length), st.integers(1, length))) for length in others]
    size = least * (most / least) ** draw(st.floats(0, 1))
    length = max(1, int(size / itemsize / prod(others)))
    row = prod(widths) * itemsize
    chunk = row * (largest_chunk / row) ** draw(st.floats(0, 1)) if row < largest_chunk else row
    return described((length, *others), (max(1, int(chunk / row)), *widths), dtype)


@settings(deadline=None, max_examples=300)
@given(arrays(largest_chunk=200 * MIB), st.sampled_from(sorted(AS_READ)))
def test_blocks_are_whole_multiples_of_chunks_and_no_larger_in_memory_than_they_may_be(stored, read_as):
    array = AS_READ[read_as](stored)
    blocks = preferred_chunks(array)
    for block, chunk, length in zip(blocks, array.chunks, array.shape, strict=True):
        assert block == length or block % chunk == 0
        assert 1 <= block <= length
    a_chunk = in_memory(array, map(min, array.chunks, array.shape))
    assert in_memory(array, blocks) <= max(a_chunk, 128 * MIB)


@settings(deadline=None, max_examples=60)
@given(arrays(largest_chunk=16 * MIB, least=1e8, most=5e10))
def test_means_take_few_tasks_whatever_the_layout_of_small_chunks(array):
    a_row = in_memory(array, (min(array.chunks[0], array.shape[0]), *array.shape[1:]))
    assume(a_row <= 32 * MIB)
    assert max(tasks_of_means(array).values()) <= 1.4 * ceil(in_memory(array) / (64 * MIB)) + 10


def test_means_take_few_tasks_for_nearly_all_layouts_of_large_chunks():
    # Of those that split the other axes unevenly, a few in a thousand have no blocks that would do.
    random = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        dtype = np.dtype(random.choice(["uint8", "int16", "float32", "float64"]))
        others = 2 ** random.uniform(0, 10, random.integers(0, 3))
        widths = np.ceil(others * random.choice([1, random.uniform()], len(others)))
        size, chunk = 2 ** random.uniform(26, 35), 2 ** random.uniform(14, 25)
        length, width = (
            max(1, int(of / dtype.itemsize)) for of in (size / prod(others), chunk / prod(widths))
        )
        array = described((length, *map(int, np.ceil(others))), (width, *map(int, widths)), dtype.name)
        missed += max(tasks_of_means(array).values()) > 1.4 * ceil(in_memory(array) / (64 * MIB)) + 10
    assert missed <= 1


@pytest.mark.parametrize("read_as", AS_READ)
@pytest.mark.parametrize(("shape", "chunks", "dtype"), REAL)
def test_means_of_such_sessions_take_few_tasks(shape, chunks, dtype, read_as):
    array = AS_READ[read_as](described(shape, chunks, dtype))
    # Of more, tasks take seconds to count.
    if in_memory(array) < 1.3e11:
        assert max(tasks_of_means(array).values()) <= 1.4 * ceil(in_memory(array) / (64 * MIB)) + 10
    # Not by a few huge blocks.
    a_chunk = in_memory(array, map(min, array.chunks, array.shape))
    assert in_memory(array, preferred_chunks(array)) <= max(a_chunk, 128 * MIB)


def test_the_other_axes_are_joined_before_time():
    assert preferred_chunks(described((10**6, 100), (1000, 10))) == (334_000, 100)
    assert preferred_chunks(described((10, 2**27), (1, 2**20))) == (1, 2**25)
    assert preferred_chunks(described((64_616_812, 384), (264_823, 1))) == (264_823, 192)


def test_blocks_exceed_the_target_only_where_that_saves_tasks():
    one_axis = described((3_000_000_000,), (1000,), "float64")
    assert 0.95 * 64 * MIB < in_memory(one_axis, preferred_chunks(one_axis)) <= 64 * MIB
    two_axes = described((93_650 * 350, 384), (350, 384))
    assert 64 * MIB / 0.7 < in_memory(two_axes, preferred_chunks(two_axes)) <= 96 * MIB


def test_blocks_are_measured_by_what_scaling_makes_of_the_samples():
    stored = described((30_000_000, 384), (350, 384))
    sizes = {
        name: in_memory(AS_READ[name](stored), preferred_chunks(AS_READ[name](stored))) for name in AS_READ
    }
    assert all(64 * MIB < size <= 96 * MIB for size in sizes.values()), sizes


@pytest.mark.parametrize(
    ("shape", "shard", "part"),
    [
        ((30_000_000, 384), (64 * 13_653, 64), (13_653, 64)),
        ((30_000_000, 384), (64 * 1024, 384), (1024, 384)),
        ((1000, 384, 4000), (64 * 1024, 384, 4000), (1, 384, 400)),
        ((4, 3, 10**9), (4, 3, 10**8), (4, 3, 10**5)),
        ((10**9,), (99_999_989,), (1,)),
    ],
)
@pytest.mark.parametrize("read_as", AS_READ)
def test_shards_that_are_too_large_are_divided_into_parts_that_can_be_read_alone(shape, shard, part, read_as):
    array = AS_READ[read_as](described(shape, shard, parts=part))
    blocks = preferred_chunks(array)
    assert 32 * MIB < in_memory(array, blocks) <= 128 * MIB
    assert all(
        block == length or block % of == 0 for block, of, length in zip(blocks, part, shape, strict=True)
    )


def test_shards_that_are_small_enough_are_not_divided():
    assert preferred_chunks(described((10**7, 64), (10**5, 64), parts=(1000, 64)))[0] % 10**5 == 0


@pytest.fixture
def the_limit_as_it_was():
    before = set_limits().block_bytes
    yield
    set_limits(block_bytes=before)


def test_a_limit_that_is_set_is_kept_by_scaled_samples_and_texts(the_limit_as_it_was):
    set_limits(block_bytes="16 MB")
    for array in (*(make(described((10**7, 64), (1000, 16))) for make in AS_READ.values()),):
        assert 4e6 < in_memory(array, preferred_chunks(array)) <= 16e6
    texts = described((10**6,), (1000,), "string")
    assert preferred_chunks(texts)[0] * 100 < 16e6


def test_arrays_opened_under_two_limits_are_two_arrays_for_dask(tmp_path, the_limit_as_it_was):
    values = np.arange(10**6, dtype="int16").reshape(250_000, 4)
    array = scaled(write(tmp_path, values, chunks=(1000, 4)), 0.5)
    opened = []
    for limit in ("128 MB", "2 MB"):
        set_limits(block_bytes=limit)
        variable = lazy_variable(("time", "channel"), array)
        given = {"from_array_kwargs": {"name": "open_dataset-data-the-same-call"}}
        opened.append(variable.chunk(variable.encoding["preferred_chunks"], **given))
    large, small = opened
    assert large.data.npartitions < small.data.npartitions
    assert large.data.name != small.data.name
    together = dask.compute(large.data, small.data)
    for each in together:
        np.testing.assert_array_equal(each, values * 0.5)


def test_chunks_that_are_too_large_to_be_joined_are_blocks():
    assert preferred_chunks(described((100, 2**26), (1, 2**26))) == (1, 2**26)
    assert preferred_chunks(described((10_000, 2**20), (36, 2**20))) == (36, 2**20)


def test_blocks_of_odd_shapes():
    assert preferred_chunks(described((), ())) == ()
    assert preferred_chunks(described((0, 5), (1, 5))) == (0, 5)
    assert preferred_chunks(described((7,), (10,))) == (7,)
    assert preferred_chunks(described((4,), (2**30,), "float64")) == (4,)
    assert preferred_chunks(described((10**7,), (1000,), "string"))[0] == pytest.approx(2**19, rel=0.1)


def test_impossible_chunks_are_left_to_reading_to_complain_about():
    blocks = preferred_chunks(described((3, 2**30), (0, 2**20)))
    assert blocks[0] == 1
    assert blocks[1] % 2**20 == 0


@pytest.mark.parametrize(
    "selected", [np.s_[1000:1900], np.s_[:, 7], np.s_[1000:1900, 7], np.s_[:6000:1000, 3:5], np.s_[-1]]
)
def test_a_selection_through_dask_reads_the_chunks_it_touches_whatever_the_blocks(tmp_path, selected):
    values = np.arange(8000 * 12, dtype="int16").reshape(8000, 12)
    array = write(tmp_path, values, chunks=(500, 4))
    data = lazy_variable(("time", "channel"), array).chunk({"time": 4000, "channel": 12})
    with track_requests() as through_dask:
        np.testing.assert_array_equal(data[selected].values, values[selected])
    rows, columns = (np.arange(8000), np.arange(12))
    touched = np.zeros((16, 3), bool)
    grid = np.broadcast_to(rows[:, None] // 500, values.shape), np.broadcast_to(columns // 4, values.shape)
    touched[grid[0][selected], grid[1][selected]] = True
    assert through_dask.requests == touched.sum()
