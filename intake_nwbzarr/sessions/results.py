"""Results of a function as Parquet files, one for each session, and back: rows, or what was returned."""

from __future__ import annotations

import io
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from intake_nwbzarr.errors import ResultError

type Kind = Literal["nothing", "scalar", "scalars", "series", "frame", "array", "dataset"]

SESSION: Final = "session"
"""The column, and the level of the index, with a session's location."""

LABELS: Final = ("subject_id", "species", "session_id")
"""The columns that every row has beside its own, in this order."""

_KEY: Final = b"nwbzarr"
_VALUE: Final = "value"
_ROW: Final = "row"


@dataclass(frozen=True)
class Layout:
    """What a result was, so that its rows can be made into it again."""

    kind: Kind
    # Columns that tell the rows of one session from one another, and what they were called.
    index: tuple[str, ...] = ()
    names: tuple[str | None, ...] = ()
    # Of a DataArray or Dataset: lengths of dimensions, dimensions of coordinates, those without a coordinate,
    # names of data variables, the array's own name, and attributes of variables.
    sizes: Mapping[str, int] = field(default_factory=dict)
    coordinates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counted: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    name: str | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def encode(value: object, session: str, labels: Mapping[str, str | None]) -> tuple[bytes, int]:
    """Return a function's result as a Parquet file, and how many rows it has.

    Raises `ResultError` for what has no form as rows.
    """
    layout, columns = _as_rows(value)
    _check_names(list(columns))
    arrays = {name: _arrow(name, values) for name, values in columns.items()}
    rows = len(next(iter(arrays.values()))) if arrays else 0
    whose = {SESSION: session, **{name: labels.get(name) for name in LABELS}}
    repeated = {name: pa.repeat(pa.scalar(text, pa.string()), rows) for name, text in whose.items()}
    about = {"format": "nwbzarr-result", "version": "1.0", **vars(layout)}
    table = pa.table(repeated | arrays).replace_schema_metadata({_KEY: json.dumps(about).encode()})
    output = io.BytesIO()
    try:
        pq.write_table(table, output, compression="zstd")
    except pa.ArrowException as error:
        raise ResultError(
            f"The function's result cannot be stored as Parquet: {str(error).splitlines()[0]:.200}."
        ) from error
    return output.getvalue(), rows


def decode(data: bytes) -> tuple[Layout, pa.Table]:
    """Return a result's layout and rows from its Parquet file."""
    _register_intervals()
    # One thread: threads cost more than they bring for one small file.
    table = pq.ParquetFile(pa.BufferReader(data)).read(use_threads=False)
    about = json.loads(table.schema.metadata[_KEY])
    names = ("index", "names", "counted", "variables")
    known = {name: about[name] for name in Layout.__dataclass_fields__}
    known |= {name: tuple(about[name]) for name in names}
    known["coordinates"] = {name: tuple(dims) for name, dims in about["coordinates"].items()}
    return Layout(**known), table.replace_schema_metadata(None)


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
        values = {name: _frame(table.select([name]))[name].iloc[0] for name in columns}
        return values[_VALUE] if layout.kind == "scalar" else values
    if layout.kind in {"series", "frame"}:
        frame = _frame(table.select(columns)).set_index(list(layout.index)).rename_axis(list(layout.names))
        if layout.kind == "frame":
            return frame
        series = frame[columns[-1]]
        return series.rename(layout.name)
    dataset = restore_dataset(layout, table)
    return dataset if layout.kind == "dataset" else dataset[layout.variables[0]].rename(layout.name)


def restore_dataset(layout: Layout, table: pa.Table) -> xr.Dataset:
    """Return the rows of a DataArray, a Dataset or scalars as a Dataset."""
    if layout.kind in {"scalar", "scalars"}:
        return xr.Dataset({name: ((), value) for name, value in _scalars(table).items()})
    dims = tuple(layout.sizes)
    shape = tuple(layout.sizes.values())
    values = {name: table[name].to_pandas() for name in (*layout.coordinates, *layout.variables)}

    def variable(name: str, own: tuple[str, ...]) -> tuple[Any, ...]:
        column, attributes = values[name], dict(layout.attributes.get(name, {}))
        stored, own = own, tuple(dim for dim in dims if dim in own)
        # Along other dimensions, it is the same.
        first = tuple(slice(None) if dim in own else 0 for dim in dims)
        if not len(column):
            return own, column.to_numpy().reshape([layout.sizes[dim] for dim in own]), attributes
        if isinstance(column.dtype, pd.api.extensions.ExtensionDtype) and len(own) == 1:
            # A coordinate of intervals, or categories.
            positions = np.arange(len(column)).reshape(shape)[first]
            return own, pd.Index(column.array.take(positions)), attributes
        wide = xr.Variable(own, column.to_numpy().reshape(shape)[first])
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
    )


def _scalars(table: pa.Table) -> dict[str, Any]:
    frame = _frame(table.drop_columns([SESSION, *LABELS]))
    return {str(name): frame[name].iloc[0] for name in frame.columns}


def rows_of(results: Iterable[tuple[Layout, pa.Table]]) -> pd.DataFrame:
    """Return the rows of many results, indexed by session and by their own index.

    Raises `ResultError` where sessions returned different columns, which would leave gaps.
    """
    shown = [(layout, table) for layout, table in results if layout.kind != "nothing"]
    if not shown:
        return pd.DataFrame(
            {name: pd.Series(dtype="str") for name in LABELS}, index=pd.Index([], name=SESSION, dtype="str")
        )
    first, columns = shown[0][0], shown[0][1].column_names
    for layout, table in shown:
        if layout.index != first.index or set(table.column_names) != set(columns):
            raise ResultError(
                f"Columns differ between sessions: {_described(layout, table)}, "
                f"{_described(first, shown[0][1])}.",
                found=table.column_names,
                expected=columns,
                next_step="Return the same columns for all sessions, or take one result with "
                ".result(session).",
            )
    tables = [table.select(columns) for _, table in shown]
    try:
        frame = _frame(pa.concat_tables(tables, promote_options="permissive"))
    except pa.ArrowException:
        # Types that Arrow does not unify, such as intervals of integers and of floats.
        frame = pd.concat([_frame(table) for table in tables], ignore_index=True)
    return frame.set_index([SESSION, *first.index])


def _described(layout: Layout, table: pa.Table) -> str:
    own = [name for name in table.column_names if name not in (SESSION, *LABELS, *layout.index)]
    by = f" by {list(layout.index)}" if layout.index else ""
    return f"{own}{by} for {table[SESSION][0] if len(table) else 'one without rows'}"


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    return frame


def concatenate(
    results: Iterable[tuple[str, Mapping[str, str | None], Layout, pa.Table]], dim: str = SESSION
) -> xr.Dataset:
    """Return results along a new dimension `session`, or along a dimension that all of them have.

    Raises `ResultError` where their other dimensions or coordinates differ, which would leave gaps.
    """
    whose: list[dict[str, str | None]] = []
    lengths: list[int] = []
    datasets: list[xr.Dataset] = []
    for session, labels, layout, table in results:
        if layout.kind == "nothing":
            continue
        if layout.kind in {"series", "frame"}:
            raise ResultError(
                "The function returned pandas objects, which are rows and not arrays.",
                found=layout.kind,
                next_step="Use .frame.",
            )
        dataset = restore_dataset(layout, table)
        if dim != SESSION and dim not in dataset.dims:
            raise ResultError(
                f"The result for {session} has no dimension {dim!r}; it has "
                f"{', '.join(map(repr, dataset.dims)) or 'none'}.",
                location=session,
                found=list(map(str, dataset.dims)),
                expected=dim,
            )
        if dim != SESSION and 0 in dataset.sizes.values():
            continue
        whose.append({SESSION: session, **{name: labels.get(name) for name in LABELS}})
        lengths.append(1 if dim == SESSION else dataset.sizes[dim])
        datasets.append(dataset)
    if not datasets:
        return xr.Dataset()
    try:
        combined = xr.concat(
            datasets,
            dim,
            data_vars="all" if dim == SESSION else "minimal",
            coords="different" if dim == SESSION else "minimal",
            compat="equals",
            join="exact",
            combine_attrs="override",
        )
    except (ValueError, KeyError) as error:
        sessions = [str(each[SESSION]) for each in whose]
        raise _differing(sessions, datasets, dim, error) from error
    labelled = {
        name: (dim, np.repeat(np.array([each[name] for each in whose], object), lengths))
        for name in (SESSION, *LABELS)
    }
    return combined.assign_coords(labelled)


def _differing(
    sessions: Sequence[str], datasets: Sequence[xr.Dataset], dim: str, error: Exception
) -> ResultError:
    """Return the error that says which coordinate differs, and between which sessions."""
    first = datasets[0]
    for session, dataset in zip(sessions, datasets, strict=True):
        # Those of dimensions first, as others follow them.
        names = [*first.dims, *first.coords, *dataset.coords]
        for name in names:
            if name == dim or not (name in first.coords or name in dataset.coords):
                continue
            same = (
                name in first.coords
                and name in dataset.coords
                and first[name].variable.equals(dataset[name].variable)
            )
            if not same:
                return ResultError(
                    f"The coordinate {str(name)!r} of the results for {sessions[0]} and {session} differs: "
                    f"they cannot be combined along {dim!r}.",
                    location=session,
                    found=str(name),
                    next_step=f"Let the function give all sessions the same {str(name)!r}, or use .frame.",
                )
    return ResultError(
        f"The results cannot be combined along {dim!r}: {str(error).splitlines()[0]:.200}",
        found=type(error).__name__,
        next_step="Use .frame.",
    )


def _as_rows(value: object) -> tuple[Layout, dict[str, Any]]:
    """Return what a result is, and its columns by name, those of its index first."""
    if value is None:
        return Layout("nothing"), {}
    if isinstance(value, xr.DataArray) and value.ndim == 0 and not value.coords:
        return _as_rows({str(value.name or _VALUE): value.values[()]})
    if isinstance(value, xr.DataArray):
        name = None if value.name is None else str(value.name)
        layout, columns = _of_dataset(value.to_dataset(name=name or _free(_VALUE, value.coords)), "array")
        return Layout(**{**vars(layout), "name": name}), columns
    if isinstance(value, xr.Dataset):
        return _of_dataset(value, "dataset")
    if isinstance(value, pd.Series):
        name = None if value.name is None else str(value.name)
        layout, columns = _of_index(value.index, "series")
        return Layout(**{**vars(layout), "name": name}), {**columns, name or _VALUE: value.array}
    if isinstance(value, pd.DataFrame):
        if value.columns.nlevels > 1:
            raise ResultError(
                "The function returned a DataFrame whose columns have several levels.",
                found=value.columns.nlevels,
                expected=1,
                next_step="Rename them, or stack() a level into the index.",
            )
        layout, columns = _of_index(value.index, "frame")
        own = {str(name): value.iloc[:, number].array for number, name in enumerate(value.columns)}
        _check_names([*columns, *map(str, value.columns)])
        return layout, columns | own
    if isinstance(value, Mapping):
        return _of_scalars(value)
    if _is_scalar(value):
        return Layout("scalar"), {_VALUE: [_plain(value)]}
    raise ResultError(
        f"The function returned an object of type {type(value).__name__}.",
        found=type(value).__name__,
        next_step="Return a number or text, a dict of these, a Series, DataFrame, DataArray or Dataset, or "
        "None.",
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
    return value[()] if isinstance(value, np.ndarray) else value


def _of_index(index: pd.Index[Any], kind: Kind) -> tuple[Layout, dict[str, Any]]:
    """Return the levels of an index as columns; those without a name are rows."""
    own = [None if name is None else str(name) for name in index.names]
    unnamed = [_ROW if len(own) == 1 else f"{_ROW}_{number}" for number in range(len(own))]
    names = [name or other for name, other in zip(own, unnamed, strict=True)]
    columns = {name: index.get_level_values(level).array for level, name in enumerate(names)}
    _check_names(names)
    return Layout(kind, tuple(names), tuple(own)), columns


def _of_dataset(dataset: xr.Dataset, kind: Kind) -> tuple[Layout, dict[str, Any]]:
    """Return a Dataset as one row for each combination of its dimensions."""
    several = [dim for dim, index in dataset.indexes.items() if index.nlevels > 1 and dim in dataset.dims]
    dataset = dataset.reset_index(several) if several else dataset
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
    return (
        Layout(
            kind,
            dims,
            dims,
            sizes,
            coordinates,
            counted,
            tuple(shapes),
            attributes={name: each for name, each in attributes.items() if each},
        ),
        columns,
    )


def _storable(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Return the attributes that describe values: short texts and numbers, and not where they are from."""
    return {
        str(name): value
        for name, value in attributes.items()
        if isinstance(value, str | int | float) and not str(name).startswith("nwb_")
    }


def _free(name: str, taken: Iterable[Hashable]) -> str:
    known = set(taken)
    while name in known:
        name += "_"
    return name


def _check_names(names: Sequence[str]) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ResultError(
            f"The function's result has two columns or levels called {twice[0]!r}.", found=twice[0]
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
    try:
        if _has_objects(values):
            objects: Any = pd.Series(values, dtype=object)
            intervals = pd.api.types.infer_dtype(objects) == "interval"
            values = pd.arrays.IntervalArray(objects) if intervals else objects.to_numpy()
        if isinstance(values, np.ndarray):
            return pa.array(np.ascontiguousarray(values), from_pandas=values.dtype == object)
        array = pa.array(values)
        return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ResultError(
            f"The column {name!r} of the function's result cannot be stored as Parquet: "
            f"{str(error).splitlines()[0]:.200}.",
            found=name,
            expected="numbers, texts, dates, intervals or categories of one type",
        ) from error


def _has_objects(values: Any) -> bool:
    # A list is of one scalar, whose own type Arrow knows.
    return isinstance(values, np.ndarray) and values.dtype == object
