"""Tables of a file as the mapping makes them, before a view assembles them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.hierarchy.hierarchy import Hierarchy, open_hierarchy
from intake_nwbzarr.mapping.model import ArrayPart, MappedObject, run_mappers
from intake_nwbzarr.mapping.options import MappingOptions
from intake_nwbzarr.mapping.tables import map_table


def mapped(path: Path | Hierarchy, table: str, **options: Any) -> MappedObject:
    """Map one table of a file."""
    hierarchy = path if isinstance(path, Hierarchy) else open_hierarchy(path)
    return run_mappers([map_table(hierarchy, table, MappingOptions(**options))])[0]


def by_name(parts: Iterable[ArrayPart]) -> dict[str, ArrayPart]:
    """Return parts by name, of which none occurs twice."""
    parts = list(parts)
    found = {part.name: part for part in parts}
    assert len(found) == len(parts)
    return found


def values(part: ArrayPart) -> NDArray[Any]:
    """Read a part's values."""
    read = part.array if isinstance(part.array, np.ndarray) else part.array.read()
    assert read.dtype == part.array.dtype
    assert read.shape == part.array.shape == tuple(dimension.size for dimension in part.dimensions)
    return read


def dimension_names(part: ArrayPart) -> tuple[str, ...]:
    """Return the names of a part's dimensions in the view of a single object."""
    return tuple(dimension.name for dimension in part.dimensions)
