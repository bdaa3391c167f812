"""Conditions on values of columns."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake_nwbzarr import Find
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.sessions.conditions import matches

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def column(*values: Any, kind: pa.DataType | None = None) -> pa.ChunkedArray:
    """A column of two chunks, of which the second is empty."""
    array = pa.array(values, kind)
    return pa.chunked_array([array, array.slice(0, 0)])


TEXTS = column("Mus musculus", "mouse", None, "a[1]", "Speed", "running_speed")


NUMBERS = column(1.0, 2.5, None, 60.0)


DATES = column(NOON, NOON + dt.timedelta(days=1), None, dt.datetime(2024, 6, 30, 23, 59, 59, tzinfo=dt.UTC))


LISTS = column(["V1", "CA1"], [], None, ["v1"])


@pytest.mark.parametrize(
    ("values", "condition", "found"),
    [
        (TEXTS, "mouse", [1]),
        (TEXTS, "Mouse", []),
        (TEXTS, "m*", [0, 1]),
        (TEXTS, "*SPEED*", [4, 5]),
        (TEXTS, "?ouse", [1]),
        (TEXTS, "[sr]*", [4, 5]),
        (TEXTS, "a[1]", [3]),
        (TEXTS, ["mouse", "*speed"], [1, 4, 5]),
        (TEXTS, {"mouse"}, [1]),
        (TEXTS, pd.Series(["mouse", "rat"]), [1]),
        (TEXTS, np.array(["mouse", "rat"]), [1]),
        (TEXTS, [], []),
        (TEXTS, None, [2]),
        (TEXTS, ["mouse", None], [1, 2]),
        (NUMBERS, 1, [0]),
        (NUMBERS, [1, 60], [0, 3]),
        (NUMBERS, (2, None), [1, 3]),
        (NUMBERS, (None, 2.5), [0, 1]),
        (NUMBERS, (2.5, 60), [1, 3]),
        (NUMBERS, {"range": [2, None]}, [1, 3]),
        (NUMBERS, [(0, 1), 60], [0, 3]),
        (NUMBERS, None, [2]),
        (NUMBERS, np.float32(2.5), [1]),
        (NUMBERS, np.array(60), [3]),
        (NUMBERS, (60, float("inf")), [3]),
        (column(2**63 + 4, 2**63 + 5, 3, None, kind=pa.uint64()), 2**63 + 5, [1]),
        (column(2**63 + 4, 2**63 + 5, 3, None, kind=pa.uint64()), (2**63 + 5, None), [1]),
        (column(1, 2, None, kind=pa.decimal128(5)), (2, None), [1]),
        (column(None, None), 3, []),
        (column(None, None), None, [0, 1]),
        (column(1, 2**40, None), 2**40, [1]),
        (column(True, False, None), True, [0]),
        (column(True, False, None), False, [1]),
        (DATES, "2024-05-01", [0]),
        (DATES, "2024-05", [0, 1]),
        (DATES, "2024", [0, 1, 3]),
        (DATES, dt.date(2024, 5, 2), [1]),
        (DATES, NOON, [0]),
        (DATES, NOON.astimezone(dt.timezone(dt.timedelta(hours=5))), [0]),
        (DATES, np.datetime64("2024-05-01T12:00"), [0]),
        (DATES, np.datetime64("2024-05"), [0, 1]),
        (DATES, np.array(["2024-05-02", "2024-06-30"], "M8[D]"), [1, 3]),
        (DATES, (np.datetime64("2024-05-02"), np.datetime64("2024-06")), [1, 3]),
        (DATES, pd.Series([NOON]), [0]),
        (column(dt.date(2024, 5, 1), dt.date(2024, 6, 1), None), "2024-05", [0]),
        (DATES, "2024-05-01T14:00+02:00", [0]),
        (DATES, ("2024-05-02", None), [1, 3]),
        (DATES, ("2024-05", "2024-06"), [0, 1, 3]),
        (DATES, (None, "2024-05-01"), [0]),
        (LISTS, "V1", [0]),
        (LISTS, "v*", [0, 3]),
        (LISTS, ["CA1", "v1"], [0, 3]),
        (LISTS, None, [2]),
        (column([3, 4], [], None, [5]), (4, None), [0, 3]),
    ],
)
def test_a_condition_holds_of_the_values_that_it_names(
    values: pa.ChunkedArray, condition: Any, found: list[int]
) -> None:
    assert np.flatnonzero(matches(values, condition, "column")).tolist() == found


@pytest.mark.parametrize("values", [TEXTS, LISTS])
@pytest.mark.parametrize("condition", ["V1", "m*", ["mouse", "CA1"], None])
def test_dictionaries_give_what_plain_columns_give(values: pa.ChunkedArray, condition: Any) -> None:
    encoded = pa.dictionary(pa.int32(), pa.string())
    if pa.types.is_list(values.type):
        flat = values.combine_chunks()
        inner = flat.values.dictionary_encode()
        lists = pa.ListArray.from_arrays(flat.offsets, inner, mask=flat.is_null())
        other = pa.chunked_array([lists])
    else:
        other = values.cast(encoded)
    assert matches(other, condition, "column").tolist() == matches(values, condition, "column").tolist()


@given(
    st.lists(st.none() | st.lists(st.sampled_from(["a", "b", "ab", ""]) | st.none(), max_size=4), max_size=8),
    st.sampled_from(["a", "a*", ["a", "b"], "*b"]),
    st.integers(0, 8),
)
def test_lists_are_found_by_any_of_their_elements(
    lists: list[list[str | None] | None], condition: Any, cut: int
) -> None:
    array = pa.array(lists, pa.list_(pa.string()))
    values = pa.chunked_array([array.slice(0, cut), array.slice(cut)])
    tests = {
        "a": lambda text: text == "a",
        "a*": lambda text: text.startswith("a"),
        "*b": lambda text: text.endswith("b"),
    }
    test = tests.get(condition, lambda text: text in {"a", "b"}) if isinstance(condition, str) else None
    test = test or (lambda text: text in {"a", "b"})
    expected = [any(text is not None and test(text) for text in each or []) for each in lists]
    assert matches(values, condition, "column").tolist() == expected


@pytest.mark.parametrize(
    ("values", "condition", "said"),
    [
        (NUMBERS, "60", "numbers"),
        (NUMBERS, True, "numbers"),
        (NUMBERS, float("nan"), "numbers"),
        (NUMBERS, (math.nan, None), "numbers"),
        (NUMBERS, 10**400, "numbers"),
        (NUMBERS, (90, 60), "first bound is above its second"),
        (DATES, ("2024-06", "2024-05"), "first bound is above its second"),
        (DATES, "09:00", "dates"),
        (DATES, "January", "dates"),
        (DATES, np.datetime64("NaT", "D"), "dates"),
        (TEXTS, ("N", "s"), "Pass a list"),
        (column({"a": 1}), "x", "only condition is None"),
        (column([("a", 1)], kind=pa.map_(pa.string(), pa.int64())), "x", "only condition is None"),
        (column(b"x"), "x*", "only condition is None"),
        (column(dt.time(9)), "09:00", "only condition is None"),
        (NUMBERS, (1, "2"), "numbers"),
        (NUMBERS, (1, 2, 3), "a range"),
        (TEXTS, 3, "texts"),
        (TEXTS, object(), "texts"),
        (TEXTS, [3], "texts"),
        (column(True), "yes", "True or False"),
        (DATES, "yesterday", "dates"),
        (DATES, 3, "dates"),
        (LISTS, 3, "texts"),
        (TEXTS, {"range": 3}, "texts"),
        (TEXTS, {"rnge": [1, 2]}, "texts"),
    ],
)
def test_a_condition_that_is_not_valid_for_its_column_is_one_clear_error(
    values: pa.ChunkedArray, condition: Any, said: str
) -> None:
    with pytest.raises(OptionError, match=said) as caught:
        matches(values, condition, "that_column")
    assert "that_column" in str(caught.value)


def test_a_find_is_shown_as_it_is_written() -> None:
    shown = "Find('TimeSeries', name='*speed*', rate=(1, None), multiple='first')"
    assert repr(Find("TimeSeries", name="*speed*", rate=(1, None), multiple="first")) == shown
    assert eval(shown) == Find("TimeSeries", name="*speed*", rate=(1, None), multiple="first")
    with pytest.raises(OptionError, match="multiple must be one of"):
        Find(multiple="some")  # type: ignore[arg-type]
