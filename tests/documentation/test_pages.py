"""Every code block of every page runs, in order, against local servers, and prints what the page shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import pytest
import xarray as xr

from tests.documentation.blocks import ROOT, Reader, blocks_of, pages

# By page, what has to be in the folder in which its blocks run.
FILES: dict[str, tuple[str, ...]] = {
    "README.md": ("tests", "catalogs"),
    "docs/cache-and-download.md": (),
    "docs/catalogs.md": (),
    "docs/clusters.md": (),
    "docs/convert.md": ("sub-1.nwb", "sub-2.nwb.zarr"),
    "docs/datasets.md": ("sub-1.nwb.zarr", "sub-2.nwb.zarr"),
    "docs/first-look.md": (),
    "docs/hdf5.md": ("sub-1.nwb",),
    "docs/index.md": (),
    "docs/hierarchy.md": ("sub-1.nwb.zarr",),
    "docs/locations.md": (),
    "docs/many-sessions.md": (),
    "docs/mapping.md": (),
    "docs/prepare-a-bucket.md": (),
    "docs/snapshots.md": (),
    "docs/streaming.md": (),
}
SLOW = {
    "docs/clusters.md",
    "docs/convert.md",
    "docs/locations.md",
    "docs/mapping.md",
    "docs/prepare-a-bucket.md",
    "docs/streaming.md",
}
# tests/test_cli.py runs its commands; those of the others are for uv and pip.
OTHERS = {"docs/command-line.md", "docs/performance.md", "CONTRIBUTING.md", "examples/README.md"}
# What cannot run here, by the pages' own words.
NOT_EXECUTED = {
    "docs/clusters.md": [
        "needs a Slurm cluster",
        "needs a Dask Gateway server",
        "needs a Kubernetes cluster",
    ],
}


def _readme(names: dict[str, Any]) -> None:
    assert names["counts"].dims == ("unit", "trial", "lag")
    assert names["done"].frame.index.names == ["session", "unit"]


def _clusters(names: dict[str, Any]) -> None:
    done = names["done"]
    assert len(done.failures) == 0
    assert done.frame.index.names == ["session", "unit", "lag"]
    assert done.to_xarray("unit").sizes["unit"] == 4 * len(done.sessions)
    assert names["by_region"].dims == ("time", "location")
    assert (len(names["found"]), names["again"], names["failed"]) == (len(done.sessions), [], {})
    assert names["power"].dims == ("channel",)
    # With keys that are sent along.
    assert names["raw"].data.max().compute() > 0


def _datasets(names: dict[str, Any]) -> None:
    assert names["pooled"].sizes["units"] == 8
    assert set(names["tuning"].dims) == {"unit", "data_bins"}


def _many_sessions(names: dict[str, Any]) -> None:
    both, lab = names["both"], names["lab"]
    assert [source.location.option("profile") for source in both.values()] == ["lab", "partner"]
    assert all(source.read().attrs["identifier"] for source in both.values())
    assert len(lab) == len(names["mice"]) == 2
    assert set(names["rate"].dims) == {"unit", "time"}
    assert len(lab.filter(names["in_sql"])) == len(lab.filter(names["in_polars"].collect())) == 2
    assert len(names["frame"]) == 6
    assert len(names["done"].failures) == 0
    with warnings.catch_warnings():
        # Intake 2.0.9 warns about shell commands whenever a parameter has a text for a default.
        warnings.simplefilter("ignore", UserWarning)
        catalog = intake.open_catalog("catalog.yaml")
        assert len(catalog.running_mice) == 2
        assert len(catalog.running_mice(species="rat")) == 0


def _streaming(names: dict[str, Any]) -> None:
    assert isinstance(names["session"], xr.Dataset)
    assert names["report"].added == ()
    assert names["counts"].dims == ("unit", "trial", "lag")
    assert names["log"].requests > 0
    assert Path("sub-1.nwb.zarr", "zarr.json").exists()


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "README.md": _readme,
    "docs/clusters.md": _clusters,
    "docs/datasets.md": _datasets,
    "docs/many-sessions.md": _many_sessions,
    "docs/streaming.md": _streaming,
}


@pytest.mark.filterwarnings(
    # Objects of the mapping's page depart from the schema on purpose.
    "ignore::intake_nwbzarr.errors.MappingWarning",
    "ignore:The linked table for DynamicTableRegion:UserWarning",
    # Another cluster of the tests has it.
    "ignore:Port 8787 is already in use:UserWarning",
    "ignore:unclosed <socket.socket:ResourceWarning",
)
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else []) for page in FILES]
)
def test_every_block_of_the_page_runs_and_prints_what_is_shown(
    page: str, reader: Callable[..., Reader]
) -> None:
    reading = reader(*FILES[page])
    try:
        names = reading.read(ROOT / page)
        if page in CHECKS:
            CHECKS[page](names)
    finally:
        if page == "docs/clusters.md":
            for name in reading.names.keys() & {"client", "cluster"}:
                reading.names[name].close()


def test_no_page_is_left_out() -> None:
    with_code = {str(page.relative_to(ROOT)) for page in pages() if blocks_of(page)}
    # The drawing of the architecture is not code.
    assert with_code - {"docs/architecture.md"} == FILES.keys() | OTHERS
    for page in OTHERS - {"docs/command-line.md"}:
        for block in blocks_of(ROOT / page):
            assert block.language == "console", block
            assert all(
                line.startswith(("$ uv ", "$ pip ")) for line in block.text.splitlines() if "$" in line
            ), block


def test_what_is_not_executed_says_why() -> None:
    marked: dict[str, list[str]] = {}
    for page in pages():
        for block in blocks_of(page):
            assert block.language in {"python", "console", "yaml", "json", "ini", ""}, block
            if block.reason is not None:
                marked.setdefault(str(page.relative_to(ROOT)), []).append(block.reason)
            assert "doctest: +SKIP" not in block.text, block
    assert marked == NOT_EXECUTED
