"""The results of many sessions as one DataFrame or Dataset; gaps are refused and never filled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import xarray as xr

from intake_nwbzarr.errors import ResultError
from intake_nwbzarr.sessions.map.results import LABELS, SESSION, Layout, restore_dataset, to_frame


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
                location=layout.session,
                found=table.column_names,
                expected=columns,
                next_step="Return the same columns for all sessions, or take one result with "
                ".result(session).",
            )
    tables = [table.select(columns) for _, table in shown]
    # What has no rows has no say in the types.
    tables = [table for table in tables if len(table)] or tables[:1]
    try:
        frame = to_frame(pa.concat_tables(tables, promote_options="permissive"))
    except pa.ArrowException:
        # Types that Arrow does not unify, such as intervals of integers and of floats.
        frame = pd.concat([to_frame(table) for table in tables], ignore_index=True)
    return frame.set_index([SESSION, *first.index])


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
        if datasets and _shown(dataset) != _shown(datasets[0]):
            raise ResultError(
                f"Variables differ between sessions: {_shown(dataset)} for {session}, "
                f"{_shown(datasets[0])} for {whose[0][SESSION]}.",
                location=session,
                found=_shown(dataset),
                expected=_shown(datasets[0]),
                next_step="Return the same variables for all sessions, or take one result with "
                ".result(session).",
            )
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


def _described(layout: Layout, table: pa.Table) -> str:
    own = [name for name in table.column_names if name not in (SESSION, *LABELS, *layout.index)]
    by = f" by {list(layout.index)}" if layout.index else ""
    return f"{own}{by} for {layout.session}"


def _shown(dataset: xr.Dataset) -> str:
    """Return the variables of a Dataset and their dimensions."""
    parts = [f"{name} ({', '.join(sorted(map(str, each.dims)))})" for name, each in dataset.data_vars.items()]
    return ", ".join(sorted(parts))


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
        f"The results cannot be combined along {dim!r}: {str(error).splitlines()[0]:.200}.",
        found=type(error).__name__,
        next_step="Use .frame.",
    )
