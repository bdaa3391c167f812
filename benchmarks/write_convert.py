"""Sessions that are converted: a recording of 1 GB, and a table of texts as older releases pickled them."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numcodecs
import numpy as np
from hdmf.common import DynamicTable, ElementIdentifiers, VectorData
from numpy.typing import NDArray

from benchmarks.write_reading import SMALL_CHUNK, write_series
from intake_nwbzarr.demo.sessions import imaging_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import COMPRESSOR, write_zarr2

RECORDING = 10**9
"""Decoded bytes of the recording."""

ROWS = 763_000
"""Rows of the table of a public session that hdmf-zarr's export did not finish in ten minutes."""

TABLE = "processing/ophys/localizations"
TEXTS = ("label", "structure", "source", "channel")


def write_recording(folder: Path, *, size: int = RECORDING) -> None:
    """A recording of 64 channels in chunks of 265 kB; Zarr 2, blosc."""
    write_series(folder, SMALL_CHUNK, size=size)


def write_texts(folder: Path, *, rows: int = ROWS) -> None:
    """A table of so many rows with four columns of texts, which are pickled; Zarr 2, about 38 MB."""
    random = np.random.default_rng(13)
    nwbfile = imaging_session(frames=240, rois=4, pixels=16)
    columns = [VectorData(name="position", description="of it", data=random.random((rows, 3)))]
    columns += [VectorData(name=name, description="of it", data=_texts(random, name, rows)) for name in TEXTS]
    table = DynamicTable(
        name="localizations",
        description="one row each",
        id=ElementIdentifiers(name="id", data=np.arange(rows)),
        columns=columns,
    )
    nwbfile.processing["ophys"].add(table)
    newer = folder.with_name(f"{folder.name}.zarr3")
    shutil.rmtree(newer, ignore_errors=True)
    write_zarr3(nwbfile, newer)
    write_zarr2(newer, folder)
    shutil.rmtree(newer)
    for name in TEXTS:
        _pickle(folder, f"{TABLE}/{name}")


def _texts(random: np.random.Generator, name: str, rows: int) -> NDArray[np.object_]:
    numbers = random.integers(0, 30_000, rows)
    return np.array([f"{name} {number:05d}" for number in numbers], dtype=object)


def _pickle(folder: Path, path: str) -> None:
    """Store a column as hdmf-zarr before 0.9 did: one chunk, a pickled array of objects."""
    document = json.loads((folder / path / ".zarray").read_text())
    (rows,) = document["shape"]
    decoded = numcodecs.get_codec(COMPRESSOR).decode((folder / path / "0").read_bytes())
    first = numcodecs.VLenUTF8().decode(decoded)
    parts = [first]
    for number in range(1, -(-rows // document["chunks"][0])):
        chunk = folder / path / str(number)
        parts.append(numcodecs.VLenUTF8().decode(numcodecs.get_codec(COMPRESSOR).decode(chunk.read_bytes())))
        chunk.unlink()
    texts = np.concatenate(parts)[:rows]
    document |= {"chunks": [rows], "filters": [{"id": "pickle", "protocol": 5}]}
    data = pickle.dumps(texts, protocol=5)
    (folder / path / "0").write_bytes(bytes(numcodecs.get_codec(COMPRESSOR).encode(data)))
    (folder / path / ".zarray").write_text(json.dumps(document))
    consolidated = json.loads((folder / ".zmetadata").read_text())
    consolidated["metadata"][f"{path}/.zarray"] = document
    (folder / ".zmetadata").write_text(json.dumps(consolidated))
