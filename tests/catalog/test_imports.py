"""What `import intake` pays for this package, and what it finds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("pynwb", "hdmf", "hdmf_zarr", "xarray", "dask", "zarr", "botocore", "aiohttp")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_importing_intake_imports_the_reader_and_nothing_heavy() -> None:
    out = run(
        "import intake, sys; print('intake_nwbzarr.catalog.reader' in sys.modules, "
        f"[name for name in {HEAVY} if name in sys.modules])"
    )
    alone = run(
        "from intake.config import conf; conf['import_on_startup'] = False; import intake, sys; "
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert out == f"True {alone}"


@pytest.mark.parametrize("module", ["intake_nwbzarr.cli", "intake_nwbzarr.catalog.source"])
def test_entry_points_import_neither_pynwb_nor_hdmf(module: str) -> None:
    assert (
        run(f"import {module}, sys; print('pynwb' in sys.modules, 'hdmf' in sys.modules)") == "False False\n"
    )


def test_the_reader_s_own_import_takes_milliseconds() -> None:
    code = """
import intake, sys, time
for name in list(sys.modules):
    if name.startswith("intake_nwbzarr"):
        del sys.modules[name]
start = time.process_time()
import intake_nwbzarr.catalog.reader
print(time.process_time() - start)
"""
    assert min(float(run(code)) for _ in range(3)) < 0.02


def test_the_driver_is_registered() -> None:
    assert run("import intake; print(intake.open_nwbzarr.__name__)") == "NWBZarrSource\n"
