"""A session that holds the types which no type of the core schema has a place for; extensions use them."""

from pathlib import Path

import numpy as np
import pynwb
from hdmf.common import CSRMatrix, DynamicTable, SimpleMultiContainer, VectorData
from hdmf.container import AbstractContainer
from hdmf_zarr import ZarrIO

from tests.session_files import consolidate, empty_session, write


def unplaced_types(folder: Path) -> Path:
    """Write a sparse matrix and a container of several, each as a file of its own within `analysis`."""
    path = write(folder, empty_session(), "unplaced_types.nwb.zarr")
    matrix = CSRMatrix(
        name="sparse",
        data=np.array([1.5, 2.5, 3.5]),
        indices=np.array([0, 2, 1], "uint8"),
        indptr=np.array([0, 2, 3], "uint8"),
        shape=(2, 3),
    )
    counts = VectorData(name="count", description="of things", data=[1, 2])
    table = DynamicTable(name="inner", description="a table", columns=[counts])
    _write_within(path, matrix)
    _write_within(path, SimpleMultiContainer(name="several", containers=[table]))
    consolidate(path)
    return path


def _write_within(session: Path, container: AbstractContainer) -> None:
    place = session / "analysis" / container.name
    with ZarrIO(str(place), manager=pynwb.get_manager(), mode="w") as io:
        io.write(container, cache_spec=False)
