"""Outer selections, cut by the cells of a grid."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr.arrays.selection import chunk_projections, outer, select
from intake_nwbzarr.errors import BoundsError


@st.composite
def axis_keys(draw, length):
    flags = st.lists(st.booleans(), min_size=length, max_size=length)
    kinds = [st.slices(length), flags.map(lambda values: np.array(values, dtype=bool))]
    if length:
        position = st.integers(-length, length - 1)
        kinds += [position, st.lists(position, max_size=6).map(lambda values: np.array(values, dtype=int))]
    return draw(st.one_of(kinds))


@given(st.data(), st.integers(0, 40), st.integers(1, 12))
def test_the_projections_of_a_selection_put_together_are_the_selection(data, length, width):
    key = data.draw(axis_keys(length))
    values = np.arange(length)
    expected = values[key]
    selection = select(key, (length,))
    out = np.full(selection.shape, -1)
    cells = []
    for projection in chunk_projections(selection.axes[0], width):
        cell = np.full(width, -2)
        part = values[projection.cell * width : (projection.cell + 1) * width]
        cell[: len(part)] = part
        out[projection.outside] = cell[projection.inside]
        cells.append(projection.cell)
    np.testing.assert_array_equal(out.reshape(selection.final_shape), expected)
    assert len(cells) == len(set(cells))
    assert set(cells) == set(np.unique(np.atleast_1d(expected) // width).tolist())


def test_axes_that_are_not_named_are_wanted_whole():
    assert select((), (2, 3)).final_shape == (2, 3)
    assert select(1, (2, 3)).final_shape == (3,)
    assert select((..., 1), (2, 3, 4)).final_shape == (2, 3)
    assert select((0, ..., slice(1)), (2, 3, 4)).final_shape == (3, 1)


@pytest.mark.parametrize(
    "key",
    [5, -6, np.array([0, 5]), np.array([True]), np.array([0.5]), (0, 0), (..., ...), np.zeros((1, 1), int)],
)
def test_a_key_that_does_not_fit_is_an_index_error(key):
    with pytest.raises(BoundsError) as caught:
        select(key, (5,))
    assert isinstance(caught.value, IndexError)


def test_steps_larger_than_a_cell_skip_cells():
    assert [projection.cell for projection in chunk_projections(range(0, 100, 30), 10)] == [0, 3, 6, 9]


def test_several_arrays_index_every_axis_on_its_own():
    values = np.arange(24).reshape(2, 3, 4)
    key = (np.array([1, 0]), slice(0, 3, 2), np.array([3, 3]))
    np.testing.assert_array_equal(values[outer(key, values.shape)], values[[1, 0]][:, ::2][:, :, [3, 3]])
