"""Small NWB Zarr files written by pynwb for one test, and what the mappers make of them."""

import datetime as dt
import json
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from hdmf_zarr.nwb import NWBZarrIO
from numpy.typing import NDArray
from pynwb import NWBFile

from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.mapping.model import ArrayPart, MappedObject, MappingOptions, run_mappers
from intake_nwbzarr.mapping.tables import map_table

START = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)


def empty_session(**arguments: Any) -> NWBFile:
    """A session without contents."""
    return NWBFile(session_description="small", identifier="small", session_start_time=START, **arguments)


def write(folder: Path, nwbfile: NWBFile, name: str = "small.nwb.zarr") -> Path:
    """Write a session as NWB Zarr."""
    path = folder / name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBZarrIO(str(path), mode="w") as io:
            io.write(nwbfile)
    return path


def edit(path: Path, array_or_group: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one object's metadata document on disk and consolidate again."""
    document = path / array_or_group / "zarr.json"
    content = json.loads(document.read_text())
    change(content)
    document.write_text(json.dumps(content))
    consolidate(path)


def consolidate(path: Path) -> None:
    """Write consolidated metadata."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zarr.consolidate_metadata(str(path))


def mapped(path: Path | Hierarchy, table: str, **options: Any) -> MappedObject:
    """One table of a file, mapped."""
    hierarchy = path if isinstance(path, Hierarchy) else open_hierarchy(path)
    return run_mappers([map_table(hierarchy, table, MappingOptions(**options))])[0]


def by_name(parts: Iterable[ArrayPart]) -> dict[str, ArrayPart]:
    """Parts by name, of which none occurs twice."""
    parts = list(parts)
    found = {part.name: part for part in parts}
    assert len(found) == len(parts)
    return found


def values(part: ArrayPart) -> NDArray[Any]:
    """A part's values."""
    read = part.array if isinstance(part.array, np.ndarray) else part.array.read()
    assert read.dtype == part.array.dtype
    assert read.shape == part.array.shape == tuple(dimension.size for dimension in part.dimensions)
    return read


def dimension_names(part: ArrayPart) -> tuple[str, ...]:
    """The names of a part's dimensions in the view of a single object."""
    return tuple(dimension.name for dimension in part.dimensions)


def rewrite(path: Path, name: str, data: np.ndarray[Any, Any]) -> None:
    """Replace an array's values, dtype and shape."""
    group = zarr.open_group(str(path), mode="r+")
    attributes = dict(group[name].attrs)
    array = group.create_array(name, data=data, overwrite=True)
    array.attrs.update(attributes)
    consolidate(path)
