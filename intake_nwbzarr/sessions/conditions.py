"""Conditions of a search: what they are, their plain form in YAML, and which values of a column meet them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from fnmatch import translate
from numbers import Integral, Real
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from intake_nwbzarr.arguments import check_choice, describe_value
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.location.urls import is_encodable
from intake_nwbzarr.sessions.selected import Multiple

type Mask = NDArray[np.bool_]

_GLOB: Final = re.compile(r"[*?\[]")
# Texts that name a time begin with its year; pandas also reads others, such as 09:00, which is today.
_DATE: Final = re.compile(r"\d{4}")
_INSTANT: Final = np.dtype("M8[us]")
_EXPECTED: Final = "a value, a list of values, a range (low, high), or None"


@dataclass(frozen=True, init=False)
class Find:
    """Conditions that all apply to the same neurodata object of a session.

    Parameters
    ----------
    type
        The neurodata type; an object of a type that extends it is found as well.
    multiple
        What happens if several objects of one session meet the conditions, when they are opened: ``"error"``,
        ``"first"`` (by path), or ``"all"`` (a dict of Datasets by path).
    **columns
        Conditions on columns of the table ``objects``, such as ``name``, ``path``, ``unit`` and ``rate``: see
        `SessionCatalog.search`.

    Examples
    --------
    >>> Find("TimeSeries", name="*speed*", unit=["cm/s", "m/s"])
    Find('TimeSeries', name='*speed*', unit=['cm/s', 'm/s'])
    """

    conditions: Mapping[str, Any] = field(hash=False)
    multiple: Multiple

    def __init__(self, /, type: Any = None, *, multiple: Multiple = "error", **columns: Any) -> None:  # noqa: A002
        check_choice("multiple", multiple, ("error", "first", "all"))
        given = columns if type is None else {"type": type, **columns}
        object.__setattr__(self, "conditions", given)
        object.__setattr__(self, "multiple", multiple)

    def __repr__(self) -> str:
        shown = [
            repr(value) if name == "type" else f"{name}={value!r}" for name, value in self.conditions.items()
        ]
        if self.multiple != "error":
            shown.append(f"multiple={self.multiple!r}")
        return f"Find({', '.join(shown)})"


def as_find(condition: Any) -> Find | None:
    """Return a condition that is a `Find`, also in its plain form `{"find": {...}}`, None for others."""
    if isinstance(condition, Find):
        return condition
    if isinstance(condition, Mapping) and set(condition) == {"find"}:
        inner = condition["find"]
        if isinstance(inner, str):
            return Find(inner)
        if not isinstance(inner, Mapping) or not all(isinstance(name, str) for name in inner):
            raise OptionError(
                f"find must be a type or a dictionary of conditions, not {describe_value(inner)}.",
                found=inner,
                expected="such as 'Units', or {'type': 'TimeSeries', 'name': '*speed*'}",
            )
        return Find(**inner)
    return None


def in_plain_form(condition: Any) -> Any:
    """Return a condition as catalog files have it: `{find: {...}}`, `{range: [low, high]}`, ..."""
    if isinstance(condition, Find):
        multiple = {} if condition.multiple == "error" else {"multiple": condition.multiple}
        inner = {name: in_plain_form(each) for name, each in condition.conditions.items()}
        return {"find": {**inner, **multiple}}
    match condition := plain(condition):
        case Mapping() if set(condition) == {"find"}:
            return condition
        case tuple():
            return {"range": [in_plain_form(each) for each in condition]}
        case list() | set() | frozenset():
            return [in_plain_form(each) for each in condition]
        case np.datetime64():
            return str(condition)
        case np.generic():
            return condition.item()
        case date():
            return condition.isoformat()
    return str(condition) if isinstance(condition, str) else condition


def is_pattern(text: str) -> bool:
    """Return whether a text of a condition is a pattern."""
    return _GLOB.search(text) is not None


def exact_texts(condition: Any) -> list[str]:
    """Return the texts that a condition compares exactly, none if it is not only of these."""
    condition = plain(condition)
    listed = condition if isinstance(condition, list | set | frozenset) else [condition]
    texts = [str(each) for each in listed if isinstance(each, str) and not is_pattern(each)]
    return texts if len(texts) == len(listed) else []


def from_text(kind: pa.DataType, condition: Any) -> Any:
    """Return a condition on numbers or booleans with the values of those that are texts."""
    if isinstance(condition, list | tuple):
        return type(condition)(from_text(kind, each) for each in condition)
    if not isinstance(condition, str):
        return condition
    if pa.types.is_boolean(kind):
        return {"true": True, "false": False}.get(condition.lower(), condition)
    for number in (int, float) if _is_number(value_type(kind)) else ():
        with suppress(ValueError):
            return number(condition)
    return condition


@dataclass(frozen=True)
class Both:
    """Two conditions on one column."""

    first: Any
    second: Any


def matches(column: pa.ChunkedArray, condition: Any, name: str) -> Mask:
    """Return which values of a column meet a condition; of a list, one of its elements has to.

    Parameters
    ----------
    column
        The column.
    condition
        See `SessionCatalog.search`.
    name
        The column's name, for errors.
    """
    if isinstance(condition, Both):
        return matches(column, condition.first, name) & matches(column, condition.second, name)
    condition = plain(condition)
    if condition is None:
        return np.asarray(column.is_null().to_numpy(), np.bool_)
    if isinstance(condition, list | set | frozenset) and any(each is None for each in condition):
        others = [each for each in condition if each is not None]
        return matches(column, None, name) | matches(column, others, name)
    tests = _tests(column.type, condition, name)
    masks = [_chunk_mask(chunk, tests) for chunk in column.chunks]
    return np.concatenate(masks) if masks else np.zeros(0, np.bool_)


def plain(condition: Any) -> Any:
    """Return arrays and the like as lists, and a range of YAML, which has no tuples, as a tuple."""
    if isinstance(condition, Mapping) and set(condition) == {"range"}:
        bounds = condition["range"]
        return tuple(bounds) if isinstance(bounds, list | tuple) else condition
    if isinstance(condition, np.ndarray) and condition.ndim == 0:
        return condition[()]
    if isinstance(condition, np.ndarray | range) or hasattr(condition, "to_list"):
        return list(condition)
    return condition.to_pylist() if isinstance(condition, pa.Array | pa.ChunkedArray) else condition


# Returns, of an array without nulls in it, or with nulls that do not matter, which values meet a condition.
type _Test = Callable[[pa.Array], Mask]


def _chunk_mask(chunk: pa.Array, tests: _Test) -> Mask:
    if pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
        met = np.zeros(len(chunk), np.bool_)
        parents = pc.list_parent_indices(chunk).to_numpy(zero_copy_only=False)
        met[parents[_chunk_mask(chunk.flatten(), tests)]] = True
        return met
    if pa.types.is_dictionary(chunk.type):
        # Once for each text, instead of for each row.
        of_value = np.append(_chunk_mask(chunk.dictionary, tests), False)
        return np.asarray(of_value[indices(chunk)], np.bool_)
    return tests(chunk) & np.asarray(chunk.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _tests(kind: pa.DataType, condition: Any, name: str) -> _Test:
    """Return the test of a condition on values of a type."""
    kind = value_type(kind)
    condition = plain(condition)
    if pa.types.is_null(kind):
        return lambda values: np.zeros(len(values), np.bool_)
    if not (_is_time(kind) or _is_number(kind) or pa.types.is_boolean(kind) or pa.types.is_string(kind)):
        raise OptionError(
            f"The column {name} has values of the type {kind}, on which the only condition is None.",
            path=name,
            found=str(kind),
        )
    if isinstance(condition, tuple):
        if len(condition) != 2:
            raise _invalid(name, kind, condition)
        return _range_test(kind, condition, name)
    if isinstance(condition, str) and not is_encodable(condition):
        raise _invalid(name, kind, condition)
    if isinstance(condition, list | set | frozenset):
        return _any_test(kind, list(condition), name)
    if _is_time(kind):
        return _range_test(kind, (condition, condition), name)
    if pa.types.is_boolean(kind):
        if not isinstance(condition, bool | np.bool_):
            raise _invalid(name, kind, condition)
        return lambda values: _boolean(pc.equal(values, pa.scalar(bool(condition))))
    if _is_number(kind):
        number = _number(kind, condition, name)
        return lambda values: _numbers(values) == number
    return _text_test(kind, condition, name)


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values that are compared: of lists, their elements."""
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _any_test(kind: pa.DataType, conditions: list[Any], name: str) -> _Test:
    """Return the test that one of several conditions is met; None among them is left to the caller."""
    if not all(is_encodable(each) for each in conditions if isinstance(each, str)):
        raise _invalid(name, kind, conditions)
    texts = [each for each in conditions if isinstance(each, str) and not is_pattern(each)]
    is_text = pa.types.is_string(kind)
    exact = pa.array(texts, pa.string()) if is_text else None
    others = [each for each in conditions if exact is None or not isinstance(each, str) or is_pattern(each)]
    tests = [_tests(kind, each, name) for each in others]

    def test(values: pa.Array) -> Mask:
        mask = np.zeros(len(values), np.bool_)
        if exact is not None and len(exact):
            mask |= _boolean(pc.is_in(pc.cast(values, pa.string()), value_set=exact))
        for each in tests:
            mask |= each(values)
        return mask

    return test


def _text_test(kind: pa.DataType, condition: Any, name: str) -> _Test:
    if not isinstance(condition, str):
        raise _invalid(name, kind, condition)
    if not is_pattern(condition):
        return lambda values: _boolean(pc.equal(values, pa.scalar(condition, values.type)))
    pattern = re.compile(translate(condition), re.IGNORECASE)

    def test(values: pa.Array) -> Mask:
        # A name may itself have brackets.
        return np.fromiter(
            (
                text is not None and (text == condition or pattern.match(text) is not None)
                for text in values.to_pylist()
            ),
            np.bool_,
            len(values),
        )

    return test


def _range_test(kind: pa.DataType, bounds: tuple[Any, Any], name: str) -> _Test:
    """Return the test that a value is in a range, both ends included; None leaves an end open."""
    low, high = bounds
    first: Any
    last: Any
    if _is_time(kind):
        first = None if low is None else _instants(low, name)[0]
        last = None if high is None else _instants(high, name)[1]
    elif _is_number(kind):
        first = None if low is None else _number(kind, low, name)
        last = None if high is None else _number(kind, high, name)
    else:
        raise no_range(name, bounds)
    if first is not None and last is not None and first > last:
        raise OptionError(
            f"The range {bounds!r:.80} for {name} is empty: its first bound is above its second.",
            path=name,
            found=describe_value(bounds),
            expected="(low, high)",
        )
    if _is_time(kind):
        return lambda values: _between(_times(values), first, last)
    return lambda values: _between(_numbers(values), first, last)


def no_range(name: str, bounds: tuple[Any, ...]) -> OptionError:
    """Return the error for a range on a column of texts."""
    return OptionError(
        f"The range {bounds!r:.80} is not valid for {name}: ranges are of numbers and times.",
        path=name,
        found=describe_value(bounds),
        next_step="Pass a list for one of several values.",
    )


def _between(values: NDArray[Any], low: Any, high: Any) -> Mask:
    mask = np.ones(len(values), np.bool_)
    if low is not None:
        mask &= values >= low
    if high is not None:
        mask &= values <= high
    return mask


def _instants(given: Any, name: str) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last instant, in UTC, of a date or time; `2024-05` is all of May."""
    import pandas as pd

    try:
        if isinstance(given, str) and not _DATE.match(given):
            raise ValueError
        if isinstance(given, np.datetime64) and not np.isnat(given):
            end: Any = given + np.timedelta64(1, np.datetime_data(given)[0])  # type: ignore[call-overload]
            start, end = given.astype(_INSTANT), end.astype(_INSTANT)
            return start, max(start, end - np.timedelta64(1, "us"))
        if isinstance(given, str) or (isinstance(given, date) and not isinstance(given, datetime)):
            at = pd.Timestamp(given)
            if at.tz is None:
                period = pd.Period(given, None if isinstance(given, str) else "D")
                # An AttributeError for "".
                return period.start_time.to_datetime64(), period.end_time.to_datetime64()
        elif isinstance(given, datetime):
            at = pd.Timestamp(given)
        else:
            raise ValueError
        if pd.isna(at):
            raise ValueError
    except (ValueError, TypeError, OverflowError, AttributeError) as error:
        raise _invalid(name, pa.timestamp("us", "UTC"), given) from error
    instant = (at if at.tz is None else at.tz_convert("UTC").tz_localize(None)).to_datetime64()
    return instant, instant


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _number(kind: pa.DataType, given: Any, name: str) -> float:
    if isinstance(given, Real) and not isinstance(given, bool):
        with suppress(OverflowError):
            number = float(given)
            # Integers are compared exactly.
            exact = int(given) if isinstance(given, Integral) and pa.types.is_integer(kind) else number
            if not math.isnan(number):
                return exact
    raise _invalid(name, kind, given)


def _times(values: pa.Array) -> NDArray[np.datetime64]:
    return np.asarray(values.to_numpy(zero_copy_only=False), _INSTANT)


def _numbers(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_integer(values.type):
        return np.asarray(pc.fill_null(values, 0).to_numpy(zero_copy_only=False))
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _boolean(values: pa.Array) -> Mask:
    return np.asarray(pc.fill_null(values, False).to_numpy(zero_copy_only=False), np.bool_)


def _invalid(name: str, kind: pa.DataType, given: Any) -> OptionError:
    what = (
        "dates or times, such as '2024-05-01'"
        if _is_time(kind)
        else "True or False"
        if pa.types.is_boolean(kind)
        else "numbers"
        if _is_number(kind)
        else "texts"
    )
    return OptionError(
        f"A condition on {name} must be {_EXPECTED} of {what}, not {describe_value(given)}.",
        found=describe_value(given),
        expected=what,
    )


def dictionary(values: pa.Array) -> pa.Array:
    """Return the distinct values of an array."""
    return values.dictionary if pa.types.is_dictionary(values.type) else values.unique()


def indices(values: pa.DictionaryArray) -> NDArray[np.integer[Any]]:
    """Return the positions of values in their dictionary, -1 for null."""
    return np.asarray(pc.fill_null(values.indices, -1).to_numpy(zero_copy_only=False))
