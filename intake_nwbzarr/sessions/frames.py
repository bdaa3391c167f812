"""Found sessions and objects as pandas DataFrames, and the sessions that a frame of any library names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from intake_nwbzarr.arguments import describe_value
from intake_nwbzarr.errors import OptionError, SessionNotFoundError
from intake_nwbzarr.location.urls import is_encodable
from intake_nwbzarr.sessions.conditions import Find
from intake_nwbzarr.sessions.search import Columns, Found, Rows, Selection
from intake_nwbzarr.sessions.tables.table_schema import without_dictionaries
from intake_nwbzarr.transport.request_log import counted

if TYPE_CHECKING:
    import pandas as pd

_FOUND: Final = "found"
_COLUMNS: Final = ("location", "path", "find")
_OF_MASKS: Final = "Select rows of the catalog's frame, and pass these: catalog.filter(catalog.df[mask])."


def frame_of(columns: Columns, rows: Rows) -> pd.DataFrame:
    """Return rows of the table sessions as a DataFrame, indexed by location, without snapshots."""
    names = [name for name in columns.tables.columns("sessions") if name != "snapshot"]
    return _pandas(columns.tables.read("sessions", names).take(pa.array(rows))).set_index("location")


def objects_frame(columns: Columns, selection: Selection) -> pd.DataFrame:
    """Return the objects of a selection: those found, named in the column ``find``, or else all."""
    if not selection.found:
        of_selection = np.isin(columns.session_of_object, selection.rows)
        return _pandas(columns.tables.read("objects").take(pa.array(np.flatnonzero(of_selection))))
    rows = np.concatenate([each.objects for each in selection.found])
    names = np.repeat(
        [each.name for each in selection.found], [len(each.objects) for each in selection.found]
    )
    frame = _pandas(columns.tables.read("objects").take(pa.array(rows)))
    frame.insert(1, "find", names)
    return frame.sort_values(["location", "find", "path"], kind="stable", ignore_index=True)


def _pandas(table: pa.Table) -> pd.DataFrame:
    """Return a table as a DataFrame, with missing integers and booleans as pandas has them."""
    import pandas as pd

    plain = pa.schema([field.with_type(without_dictionaries(field.type)) for field in table.schema])
    types = {
        pa.int64(): pd.Int64Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int8(): pd.Int8Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    frame: pd.DataFrame = table.cast(plain).to_pandas(types_mapper=types.get)
    return frame


def chosen_rows(columns: Columns, selection: Selection, chosen: Any) -> Selection:
    """Return the sessions of a selection that a frame names, and the objects if it names those."""
    table = _named(chosen)
    rows = columns.rows_of(table["location"])
    unknown = [text.as_py() for text, row in zip(table["location"], rows, strict=True) if row < 0]
    if unknown:
        raise SessionNotFoundError(
            f"The tables {columns.tables.place} do not have {len(unknown):,} of "
            f"{counted(len(rows), 'location')}, such as {describe_value(unknown[0])}.",
            location=columns.tables.place,
            found=unknown[:10],
            next_step="Locations must be spelled as in list(catalog).",
        )
    mask = np.zeros(columns.tables.rows("sessions"), np.bool_)
    mask[rows] = True
    if "path" not in table.column_names:
        return selection.within(mask)
    return selection.with_only(_found(columns, table, rows), mask)


def _named(chosen: Any) -> pa.Table:
    """Return the columns location, path and find of a frame, or of an iterable of locations."""
    import pandas as pd

    if isinstance(chosen, str):
        chosen = [chosen]
    if isinstance(chosen, pd.Series) and pd.api.types.is_bool_dtype(chosen.dtype):
        chosen = _of_mask(chosen)
    is_frame = hasattr(chosen, "__arrow_c_stream__") and hasattr(chosen, "columns")
    # A LazyFrame of polars, or a collection of dask.
    lazy = [name for name in ("collect", "compute") if hasattr(chosen, name)]
    if lazy and not is_frame:
        raise _not_chosen(describe_value(chosen), f"Pass the result of its method {lazy[0]}().")
    if isinstance(chosen, type) or not (is_frame or isinstance(chosen, Iterable)):
        raise _not_chosen(describe_value(chosen))
    try:
        if not is_frame:
            listed = chosen.to_pylist() if hasattr(chosen, "to_pylist") else list(chosen)
            return pa.table({"location": _texts(listed, "location")})
        table = _of_pandas(chosen) if isinstance(chosen, pd.DataFrame) else pa.table(chosen)
    except (pa.ArrowException, ValueError, TypeError) as error:
        if isinstance(error, OptionError):
            raise
        raise _not_chosen(f"{describe_value(chosen)} that cannot be read") from error
    names = table.column_names
    if "location" not in names:
        shown = ", ".join(map(str, names))
        raise _not_chosen(f"a frame with the columns {shown}" if shown else "a frame without columns")
    kept = [name for name in _COLUMNS if name in names]
    for name in kept:
        if names.count(name) > 1:
            raise _not_chosen(f"a frame with {names.count(name)} columns {name!r}")
    return pa.table({name: _texts(table[name].to_pylist(), name) for name in kept})


def _of_mask(mask: pd.Series[Any]) -> pd.DataFrame:
    """Return a frame of the sessions where a boolean Series is true; its index has to be the sessions."""
    if not {"location", "session"} & set(mask.index.names):
        raise _not_chosen("a boolean Series whose index is not named 'location'", _OF_MASKS)
    return mask[mask.fillna(False).astype(bool)].to_frame("chosen")


def _of_pandas(frame: pd.DataFrame) -> pa.Table:
    named = frame
    if "location" not in frame.columns:
        # Also what `SessionCatalog.table` and `map` return, whose index is the session.
        named = frame.reset_index()
        if "location" not in named.columns:
            named = named.rename(columns={"session": "location"})
    wanted = [name for name in named.columns if name in _COLUMNS]
    if "location" not in wanted:
        return pa.table({str(name): [] for name in frame.columns})
    if len(set(wanted)) < len(wanted):
        raise _not_chosen("a frame with several columns of one name")
    return pa.Table.from_pandas(named[wanted], preserve_index=False)


def _texts(values: list[Any], name: str) -> pa.Array:
    """Return a column of a frame, which must have a text in every row; a name may be missing."""
    import pandas as pd

    if name == "find":
        values = [_FOUND if each is None else each for each in values]
    for each in values:
        if not isinstance(each, str) or not is_encodable(each):
            if pd.api.types.is_scalar(each) and pd.isna(each):
                raise _not_chosen(f"a row without a {name}")
            if isinstance(each, bool | np.bool_):
                raise _not_chosen("booleans", _OF_MASKS)
            raise _not_chosen(f"a {name} that is {describe_value(each)}")
    return pa.array(values, pa.string())


def _not_chosen(found: str, next_step: str | None = None) -> OptionError:
    expected = "a frame with a column 'location', or an iterable of locations"
    return OptionError(
        f"filter() takes {expected}, not {found}.", found=found, expected=expected, next_step=next_step
    )


def _found(columns: Columns, table: pa.Table, rows: Rows) -> list[Found]:
    """Return the objects that a frame names by location and path."""
    import pandas as pd

    names = table["find"].to_pylist() if "find" in table.column_names else [_FOUND] * len(table)
    wanted = pd.DataFrame({"session": rows, "path": table["path"].to_pylist(), "find": names})
    objects = np.flatnonzero(np.isin(columns.session_of_object, rows))
    known = pd.DataFrame(
        {
            "object": objects,
            "session": columns.session_of_object[objects],
            "path": columns.get("objects", ["path"])[0].take(pa.array(objects)).to_pylist(),
        }
    )
    merged = wanted.drop_duplicates().merge(known, on=["session", "path"], how="left")
    lost = merged[merged["object"].isna()]
    if len(lost):
        raise OptionError(
            f"The tables {columns.tables.place} do not have {len(lost):,} of "
            f"{counted(len(wanted), 'object')}, such as {describe_value(lost['path'].iloc[0])}.",
            location=columns.tables.place,
            found=lost["path"].iloc[0],
            next_step="Paths must be spelled as in the column path of catalog.objects.",
        )
    found = []
    for name, of_name in merged.sort_values("object").groupby("find", sort=False):
        numbers = of_name["object"].to_numpy(np.int64)
        found.append(Found(str(name), Find(), numbers, columns.session_of_object[numbers]))
    return found
