"""Results of a function as Parquet files, one for each session, and back: rows, or what was returned."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from intake_nwbzarr.errors import ResultError

type Label = str | int | float | None
type Kind = Literal["nothing", "scalar", "scalars", "series", "frame", "array", "dataset"]

SESSION: Final = "session"
"""The column, and the level of the index, with a session's location."""

LABELS: Final = ("subject_id", "species", "session_id")
"""The columns that every row has beside its own, in this order."""

NOT_A_RESULT: Final = (ValueError, KeyError, TypeError, AttributeError, OSError, NotImplementedError)
"""Errors of reading a file that is not a result."""

_KEY: Final = b"nwbzarr"
_VALUE: Final = "value"
_ROW: Final = "row"


@dataclass(frozen=True)
class Layout:
    """What a result was, so that its rows can be made into it again."""

    kind: Kind
    # Columns that tell the rows of one session from one another, and what they were called.
    index: tuple[str, ...] = ()
    names: tuple[Label, ...] = ()
    # The labels of a DataFrame's columns, which are numbers in some.
    columns: tuple[Label, ...] = ()
    # The dtypes of columns; of a Categorical, its categories.
    dtypes: Mapping[str, Any] = field(default_factory=dict)
    # Of a DataArray or Dataset: lengths of dimensions, dimensions of coordinates, those without a coordinate,
    # names of data variables, the name of the array, or of a frame's columns, and attributes of variables.
    sizes: Mapping[str, int] = field(default_factory=dict)
    coordinates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    name: Label = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    # Those of a whole Dataset.
    attrs: Mapping[str, Any] = field(default_factory=dict)
    # Whose result it is, and what it depends on.
    session: str = ""
    key: str = ""


def encode(value: object, session: str, labels: Mapping[str, str | None], key: str = "") -> tuple[bytes, int]:
    """Return a function's result as a Parquet file, and how many rows it has.

    Raises `ResultError` for what has no form as rows.
    """
    layout, columns = _as_rows(value)
    _check_names(list(columns))
    arrays = {name: _arrow(name, values) for name, values in columns.items()}
    rows = len(next(iter(arrays.values()))) if arrays else 0
    whose = {SESSION: session, **{name: labels.get(name) for name in LABELS}}
    repeated = {name: pa.repeat(pa.scalar(text, pa.string()), rows) for name, text in whose.items()}
    about = {"format": "nwbzarr-result", "version": "1.0", **vars(layout), "session": session, "key": key}
    output = io.BytesIO()
    try:
        table = pa.table(repeated | arrays).replace_schema_metadata({_KEY: json.dumps(about).encode()})
        pq.write_table(table, output, compression="zstd")
    except (pa.ArrowException, UnicodeEncodeError) as error:
        raise ResultError(
            f"The function's result cannot be stored as Parquet: {str(error).splitlines()[0]:.200}."
        ) from error
    return output.getvalue(), rows


def decode(data: bytes) -> tuple[Layout, pa.Table]:
    """Return a result's layout and rows from its Parquet file."""
    _register_intervals()
    # One thread: threads cost more than they bring for one small file.
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    return _layout(table.schema.metadata), table.replace_schema_metadata(None)


def summary(data: bytes) -> tuple[str, int]:
    """Return the key of a result and how many rows it has, from the end of its Parquet file."""
    about = pq.read_metadata(pa.BufferReader(data))
    return _layout(about.metadata).key, about.num_rows


def _layout(metadata: Mapping[bytes, bytes]) -> Layout:
    about = json.loads(metadata[_KEY])
    known = {name: about[name] for name in Layout.__dataclass_fields__}
    names = ("index", "names", "columns", "counted", "variables")
    known |= {name: tuple(about[name]) for name in names}
    known["coordinates"] = {name: tuple(dims) for name, dims in about["coordinates"].items()}
    return Layout(**known)


@cache
def _register_intervals() -> None:
    # pandas registers its type of intervals when it first makes one of Arrow.
    pa.array(pd.arrays.IntervalArray.from_breaks([0, 1]))


def restore(layout: Layout, table: pa.Table) -> Any:
    """Return a result as the function returned it."""
    columns = [name for name in table.column_names if name not in (SESSION, *LABELS)]
    if layout.kind == "nothing":
        return None
    if layout.kind in {"scalar", "scalars"}:
        values = _scalars(table)
        return values[_VALUE] if layout.kind == "scalar" else values
    if layout.kind in {"series", "frame"}:
        frame = to_frame(table.select(columns))
        for name in columns:
            frame[name] = _typed(frame[name], layout.dtypes.get(name))
        frame = frame.set_index(list(layout.index)).rename_axis(list(layout.names))
        if layout.kind == "series":
            return frame[columns[-1]].rename(layout.name)
        return frame.set_axis(pd.Index(layout.columns, name=layout.name), axis="columns")
    dataset = restore_dataset(layout, table)
    return dataset if layout.kind == "dataset" else dataset[layout.variables[0]].rename(layout.name)


def restore_dataset(layout: Layout, table: pa.Table) -> xr.Dataset:
    """Return the rows of a DataArray, a Dataset or scalars as a Dataset."""
    if layout.kind in {"scalar", "scalars"}:
        return xr.Dataset({name: ((), value) for name, value in _scalars(table).items()})
    dims = tuple(layout.sizes)
    shape = tuple(layout.sizes.values())

    def variable(name: str, own: tuple[str, ...]) -> tuple[Any, ...]:
        column = _typed(table[name].to_pandas(), layout.dtypes.get(name))
        attributes = dict(layout.attributes.get(name, {}))
        dtype = _numpy_dtype(layout.dtypes.get(name))
        stored, own = own, tuple(dim for dim in dims if dim in own)
        # Along other dimensions, it is the same.
        first = tuple(slice(None) if dim in own else 0 for dim in dims)
        if not len(column):
            return own, column.to_numpy(dtype).reshape([layout.sizes[dim] for dim in own]), attributes
        if dtype is None and isinstance(column.dtype, pd.api.extensions.ExtensionDtype) and len(own) == 1:
            # A coordinate of intervals, or categories.
            positions = np.arange(len(column)).reshape(shape)[first]
            return own, pd.Index(column.array.take(positions)), attributes
        wide = xr.Variable(own, column.to_numpy(dtype).reshape(shape)[first])
        return stored, wide.transpose(*stored).values, attributes

    # Without rows, there are no values of coordinates, except of those that have none.
    kept = {
        name: own
        for name, own in layout.coordinates.items()
        if all(shape) or 0 in [layout.sizes[each] for each in own]
    }
    return xr.Dataset(
        {name: variable(name, dims) for name in layout.variables},
        {name: variable(name, own) for name, own in kept.items()},
        dict(layout.attrs),
    )


def _typed(column: pd.Series[Any], stored: Any) -> pd.Series[Any]:
    """Return a column with the dtype that it had, where pandas can make it."""
    try:
        if isinstance(stored, Mapping):
            with pa.ipc.open_stream(base64.b64decode(stored["categories"])) as reader:
                categories = pd.Index(reader.read_all()[_VALUE].to_pandas().array)
            return column.astype(pd.CategoricalDtype(categories, stored["ordered"]))
        dtype = pd.api.types.pandas_dtype(stored or object)
        # Objects, and texts as arrays have them.
        is_plain = isinstance(dtype, np.dtype) and dtype.kind in "OSU"
        return column if is_plain or dtype == column.dtype else column.astype(dtype)
    except (TypeError, ValueError):
        # Such as a time zone of dateutil, which comes back as another class of the same zone.
        return column


def _numpy_dtype(stored: Any) -> np.dtype[Any] | None:
    try:
        return np.dtype(stored) if isinstance(stored, str) else None
    except (TypeError, ValueError, SyntaxError):
        return None


def _dtype(values: Any) -> Any:
    """Return a dtype as `_typed` takes it."""
    if not isinstance(values.dtype, pd.CategoricalDtype):
        return values.dtype.str if isinstance(values.dtype, np.dtype) else str(values.dtype)
    table = pa.table({_VALUE: _arrow("categories", values.dtype.categories)})
    output = io.BytesIO()
    with pa.ipc.new_stream(output, table.schema) as writer:
        writer.write_table(table)
    return {"categories": base64.b64encode(output.getvalue()).decode(), "ordered": bool(values.dtype.ordered)}


def _scalars(table: pa.Table) -> dict[str, Any]:
    frame = to_frame(table.drop_columns([SESSION, *LABELS]))
    return {str(name): frame[name].iloc[0] for name in frame.columns}


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a table as a DataFrame; integers and booleans stay what they are beside missing ones."""
    frame: pd.DataFrame = table.to_pandas()
    for name in table.column_names:
        column = table[name]
        if column.null_count and (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
            frame[name] = column.to_pandas(types_mapper=_NULLABLE.get).array
    return frame


_NULLABLE: Final = {
    pa.bool_(): pd.BooleanDtype(),
    **{getattr(pa, str(each).lower())(): each for each in (
        pd.Int8Dtype(), pd.Int16Dtype(), pd.Int32Dtype(), pd.Int64Dtype(),
        pd.UInt8Dtype(), pd.UInt16Dtype(), pd.UInt32Dtype(), pd.UInt64Dtype(),
    )},
}  # fmt: skip


def _as_rows(value: object) -> tuple[Layout, dict[str, Any]]:
    """Return what a result is, and its columns by name, those of its index first."""
    if value is None:
        return Layout("nothing"), {}
    if isinstance(value, xr.DataArray):
        # An array may have the name of one of its dimensions or coordinates.
        taken = [str(name) for name in (*value.dims, *value.coords)]
        name = _VALUE if value.name is None or str(value.name) in taken else str(value.name)
        layout, columns = _of_dataset(value.to_dataset(name=_free(name, taken)), "array")
        return replace(layout, name=_label(value.name), attrs={}), columns
    if isinstance(value, xr.Dataset):
        return _of_dataset(value, "dataset")
    if isinstance(value, pd.Series):
        layout, columns = _of_index(value.index, "series", [])
        name = _VALUE if value.name is None or str(value.name) in columns else str(value.name)
        return _of_pandas(layout, columns, {_free(name, columns): value.array}, value.name)
    if isinstance(value, pd.DataFrame):
        if value.columns.nlevels > 1:
            raise ResultError(
                "The function returned a DataFrame whose columns have several levels.",
                found=value.columns.nlevels,
                expected=1,
                next_step="Rename them, or stack() a level into the index.",
            )
        names = [str(name) for name in value.columns]
        _check_names(names)
        layout, columns = _of_index(value.index, "frame", names)
        own = {name: value.iloc[:, number].array for number, name in enumerate(names)}
        layout = replace(layout, columns=tuple(_label(name) for name in value.columns))
        return _of_pandas(layout, columns, own, value.columns.name)
    if isinstance(value, Mapping):
        return _of_scalars(value)
    if _is_scalar(value):
        return Layout("scalar"), {_VALUE: [_plain(value)]}
    module = type(value).__module__.partition(".")[0]
    what = type(value).__name__ if module == "builtins" else f"{module}.{type(value).__name__}"
    raise ResultError(
        f"The function returned an object of type {what}.",
        found=type(value).__name__,
        next_step="Return a number or text, a dict of these, a pandas Series or DataFrame, an xarray "
        "DataArray or Dataset, or None.",
    )


def _of_scalars(value: Mapping[Any, Any]) -> tuple[Layout, dict[str, Any]]:
    columns = {}
    for name, each in value.items():
        if isinstance(each, xr.DataArray) and each.ndim == 0:
            each = each.values[()]
        if not (each is None or _is_scalar(each)):
            raise ResultError(
                f"The function returned a dict whose {str(name)!r:.80} is an object of type "
                f"{type(each).__name__}; its values must be numbers or texts.",
                found=type(each).__name__,
                next_step="Return a DataFrame or a Dataset for values with dimensions.",
            )
        columns[str(name)] = [_plain(each)]
    _check_names([str(name) for name in value])
    return Layout("scalars"), columns


def _is_scalar(value: object) -> bool:
    return bool(pd.api.types.is_scalar(value)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def _plain(value: Any) -> Any:
    value = value[()] if isinstance(value, np.ndarray) else value
    # A missing one has no type of its own.
    return None if value is pd.NA or value is pd.NaT else value


def _of_index(index: pd.Index[Any], kind: Kind, taken: Sequence[str]) -> tuple[Layout, dict[str, Any]]:
    """Return the levels of an index as columns; those without a name are rows."""
    own = [None if name is None else str(name) for name in index.names]
    unnamed = [_ROW if len(own) == 1 else f"{_ROW}_{number}" for number in range(len(own))]
    names = [
        _free(other, [*taken, *filter(None, own)]) if name is None else name
        for name, other in zip(own, unnamed, strict=True)
    ]
    _check_names([*names, *taken])
    columns = {name: index.get_level_values(level).array for level, name in enumerate(names)}
    return Layout(kind, tuple(names), tuple(_label(name) for name in index.names)), columns


def _of_pandas(
    layout: Layout, index: Mapping[str, Any], own: Mapping[str, Any], name: Hashable
) -> tuple[Layout, dict[str, Any]]:
    """Return the columns of an index and of values, with their dtypes noted."""
    columns = {**index, **own}
    dtypes = {each: _dtype(values) for each, values in columns.items()}
    return replace(layout, dtypes=dtypes, name=_label(name)), columns


def _label(name: Any) -> Label:
    """Return a name as JSON has it: numbers stay numbers, anything else becomes text."""
    plain = name.item() if isinstance(name, np.generic) else name
    return plain if plain is None or isinstance(plain, str | int | float) else str(name)


def _of_dataset(dataset: xr.Dataset, kind: Kind) -> tuple[Layout, dict[str, Any]]:
    """Return a Dataset as one row for each combination of its dimensions."""
    several = [dim for dim, index in dataset.indexes.items() if index.nlevels > 1 and dim in dataset.dims]
    dataset = dataset.reset_index(several) if several else dataset
    texts = {name: str(name) for name in (*dataset.variables, *dataset.dims) if not isinstance(name, str)}
    _check_names([str(name) for name in {*dataset.variables, *dataset.dims}])
    dataset = dataset.rename(texts)
    shapes = {str(name): tuple(map(str, each.dims)) for name, each in dataset.data_vars.items()}
    if not shapes:
        raise ResultError("The function returned a Dataset without variables.", found=0)
    dims = next(iter(shapes.values()))
    if any(set(own) != set(dims) for own in shapes.values()):
        shown = ", ".join(f"{name} ({', '.join(own)})" for name, own in list(shapes.items())[:4])
        raise ResultError(
            f"The function returned a Dataset whose variables have different dimensions: {shown}.",
            found={name: list(own) for name, own in shapes.items()},
            next_step="Return variables of the same dimensions; map two functions for two tables.",
        )
    # Coordinates along other dimensions say nothing of the variables.
    dataset = dataset.drop_dims(set(dataset.dims) - set(dims))
    sizes = {dim: dataset.sizes[dim] for dim in dims}
    shape = tuple(sizes.values())
    coordinates = {str(name): tuple(map(str, each.dims)) for name, each in dataset.coords.items()}
    counted = tuple(dim for dim in dims if dim not in coordinates)
    positions = dict(zip(dims, np.indices(shape, sparse=True), strict=True))

    def rows(name: Hashable, own: tuple[str, ...]) -> Any:
        if len(own) == 1:
            values = dataset.indexes[name] if name in dataset.indexes else dataset[name].values
            return values.take(np.broadcast_to(positions[own[0]], shape).ravel())
        array = dataset[name].transpose(*(dim for dim in dims if dim in own))
        wide = array.values[tuple(slice(None) if dim in own else None for dim in dims)]
        return np.broadcast_to(wide, shape).ravel()

    columns: dict[str, Any] = {}
    for dim in dims:
        whole = np.broadcast_to(positions[dim], shape).ravel()
        columns[dim] = whole if dim in counted else rows(dim, coordinates[dim])
    for name, own in coordinates.items():
        if name not in columns:
            columns[name] = rows(name, own)
    for name in shapes:
        columns[name] = dataset[name].transpose(*dims).values.ravel()
    attributes = {str(name): _storable(each.attrs) for name, each in dataset.variables.items()}
    dtypes = {
        # Intervals and categories are those of an index, and texts those of the array.
        name: _dtype(values if _is_of_pandas(values) else dataset[name])
        for name, values in columns.items()
        if name in dataset.variables
    }
    return (
        Layout(
            kind,
            index=dims,
            names=dims,
            dtypes=dtypes,
            sizes=sizes,
            coordinates=coordinates,
            counted=counted,
            variables=tuple(shapes),
            attributes={name: each for name, each in attributes.items() if each},
            attrs=_storable(dataset.attrs),
        ),
        columns,
    )


def _is_of_pandas(values: Any) -> bool:
    dtype = values.dtype
    return isinstance(dtype, pd.api.extensions.ExtensionDtype) and not isinstance(dtype, pd.StringDtype)


def _storable(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the attributes that describe values: short texts and numbers, and not where they are from."""
    plain = {
        str(name): value.item() if isinstance(value, np.generic) else value
        for name, value in attributes.items()
        if not str(name).startswith("nwb_")
    }
    return {name: value for name, value in plain.items() if isinstance(value, str | int | float)}


def _free(name: str, taken: Iterable[Hashable]) -> str:
    known = set(taken)
    while name in known:
        name += "_"
    return name


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ResultError(
            f"The function's result has two columns or levels called {twice[0]!r}.",
            found=twice[0],
            next_step="Give them different names.",
        )
    taken = [name for name in names if name in (SESSION, *LABELS)]
    if taken:
        raise ResultError(
            f"The function's result has a column {taken[0]!r}, which is that of the session in all results.",
            found=taken[0],
            next_step="Give it another name.",
        )


def _arrow(name: str, values: Any) -> pa.Array:
    """Return a column for Arrow, NaN staying a value; intervals become pandas' type of them."""
    if isinstance(values, pd.Index | pd.Series):
        values = values.array
    if isinstance(values, pd.arrays.NumpyExtensionArray):
        values = values.to_numpy()
    if isinstance(values, pd.arrays.SparseArray):
        values = values.to_dense()
    if isinstance(values, pd.Categorical) and not pd.api.types.is_string_dtype(values.categories.dtype):
        # Parquet has dictionaries of texts only.
        codes = pa.array(values.codes, mask=values.codes < 0)
        return _arrow(name, values.categories).take(codes)
    try:
        if isinstance(values, list) and isinstance(values[0], _OF_PANDAS):
            values = pd.array(values)
        if _has_objects(values):
            objects: Any = pd.Series(values, dtype=object)
            intervals = pd.api.types.infer_dtype(objects) == "interval"
            values = pd.arrays.IntervalArray(objects) if intervals else objects.to_numpy()
        if isinstance(values, np.ndarray):
            # Arrow ends the texts of an array at a NUL.
            values = values.astype(object) if values.dtype.kind in "SU" else values
            return pa.array(np.ascontiguousarray(values), from_pandas=values.dtype == object)
        array = pa.array(values)
        return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ResultError(
            f"The column {name!r} of the function's result cannot be stored as Parquet: "
            f"{str(error).splitlines()[0]:.200}.",
            found=name,
            expected="numbers, texts, dates, intervals or categories of one type",
            next_step="Return numbers, texts, dates, intervals or categories, of one type in a column.",
        ) from error


# Scalars that Arrow does not know by themselves.
_OF_PANDAS: Final = (pd.Interval, pd.Period, np.datetime64, np.timedelta64)


def _has_objects(values: Any) -> bool:
    # A list is of one scalar, whose own type Arrow knows.
    return isinstance(values, np.ndarray) and values.dtype == object
