"""Memory that a conversion takes: less than 1 GB, however large the session is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest

MOST = 1000 * 10**6

_CONVERTED = """
import re, sys
from pathlib import Path
from intake_nwbzarr import convert
done = convert(sys.argv[1], sys.argv[2])
assert done.written
# Not ru_maxrss, which begins with the memory of the process that started this one.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(int(peak[1]) * 1024, done.bytes)
"""


def _session(folder: Path, size: int, compressor: Any, chunk: tuple[int, int]) -> Path:
    """A recording in Zarr 2 of which all chunks are one file, so that it takes no room on the disk."""
    values = np.arange(chunk[0] * chunk[1], dtype="i2").reshape(chunk) // 64
    rows = size // 2 // chunk[1] // chunk[0]
    document = {
        "zarr_format": 2,
        "shape": [rows * chunk[0], chunk[1]],
        "chunks": list(chunk),
        "dtype": "<i2",
        "compressor": compressor.get_config(),
        "filters": None,
        "order": "C",
        "fill_value": 0,
    }
    array = folder / "acquisition" / "data"
    array.mkdir(parents=True)
    (array / ".zarray").write_text(json.dumps(document))
    root = {"neurodata_type": "NWBFile", "namespace": "core", "nwb_version": "2.6.0"}
    for path in (folder, folder / "acquisition"):
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(root if path == folder else {}))
    (array / "0.0").write_bytes(compressor.encode(values))
    for row in range(1, rows):
        os.link(array / "0.0", array / f"{row}.0")
    return folder


def _peak(source: Path, target: Path, size: int) -> int:
    """The most memory that a process of its own takes to convert a session."""
    command = [sys.executable, "-W", "ignore", "-c", _CONVERTED, str(source), str(target)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=900).stdout
    peak, converted = map(int, printed.split())
    assert converted == size
    return peak


@pytest.mark.slow
def test_half_a_gigabyte_is_encoded_anew_in_bounded_memory(tmp_path: Path) -> None:
    chunk = (2**16, 64)
    source = _session(tmp_path / "a.nwb.zarr", 2**29, numcodecs.Zlib(1), chunk)
    assert _peak(source, tmp_path / "b.nwb.zarr", 2**29) < MOST


@pytest.mark.slow
@pytest.mark.parametrize("compressor", [numcodecs.Zlib(1), numcodecs.Blosc("lz4", 1)])
@pytest.mark.parametrize("chunk", [(2**12, 64), (2**18, 64)])
def test_gigabytes_are_converted_in_the_same_memory(
    compressor: Any, chunk: tuple[int, int], tmp_path: Path
) -> None:
    """Chunks of 512 KiB and of 32 MiB, copied as they are and encoded anew."""
    source = _session(tmp_path / "a.nwb.zarr", 2**32, compressor, chunk)
    assert _peak(source, tmp_path / "b.nwb.zarr", 2**32) < MOST
