"""Search and open one session among 100,000 sessions and 2,000,000 objects, in a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.session_files import copy_of
from tests.sessions.large_tables import write_large_tables

SECONDS, MB = 0.5, 500

_CODE = """
import json, re, sys, time
start = time.perf_counter()
import dask.array, intake, pandas, xarray
import intake_nwbzarr.backend, intake_nwbzarr.mapping.views, intake_nwbzarr.sessions.catalog
from intake_nwbzarr import Find
imported, cpu = time.perf_counter(), time.process_time()
lab = intake.open_nwbzarr_sessions(sys.argv[1])
speed = Find("TimeSeries", name="*speed*", unit=["cm/s", "m/s"])
found = lab.search(species="mouse", units=Find("Units"), speed=speed)
searched = time.perf_counter()
dataset = found[next(iter(found))].read()
opened = time.perf_counter()
assert dataset.attrs["identifier"]
print(json.dumps({
    "found": len(found),
    "import": imported - start,
    "search": searched - imported,
    "open": opened - searched,
    "CPU": time.process_time() - cpu,
    # The peak of this process; getrusage() gives that of the process that started it, if it was larger.
    "MB": int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1e3,
}))
"""


def measure(table: Path) -> dict[str, float]:
    """Seconds of importing, searching and opening, and the peak of memory, in a fresh process."""
    # Imports would be compiled each time.
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", _CODE, str(table)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc")
def test_searching_and_opening_one_of_many_takes_little(ecephys: Path, tmp_path: Path) -> None:
    session = copy_of(ecephys, tmp_path, "session.nwb.zarr")
    write_large_tables(tmp_path / "sessions.parquet", first=f"file://{session}")
    runs = [measure(tmp_path / "sessions.parquet") for _ in range(3)]
    best = min(runs, key=lambda each: each["search"] + each["open"])
    print(best)
    assert best["found"] > 50_000
    # A busy machine takes longer, but not more of its processors' time: two work at once.
    assert min(best["search"] + best["open"], best["CPU"] / 2) <= SECONDS
    assert best["MB"] <= MB
