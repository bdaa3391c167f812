"""The messages that users meet most, word for word, as tests/data/messages.txt holds them.

Each block of that file is the name of a test, the class of its error and the error's text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import intake
import numpy as np
import pytest
import xarray as xr

import intake_nwbzarr
from intake_nwbzarr import errors, open_hierarchy
from intake_nwbzarr.accessor.sessions import check_same_session
from intake_nwbzarr.indexes import IrregularTimeIndex, RegularTimeIndex
from intake_nwbzarr.location.location import Location, locate
from intake_nwbzarr.mapping.time_coordinates import reference_time
from tests.hierarchy.stores import array, group, write_store

GOLDEN = Path(__file__).parent / "data" / "messages.txt"


def blocks() -> dict[str, str]:
    parts = (block.partition("\n") for block in GOLDEN.read_text().strip().split("\n\n"))
    return {name: text for name, _, text in parts}


def test_the_blocks_are_sorted_and_each_is_provoked_by_a_test() -> None:
    names = list(blocks())
    assert names == sorted(name for name in globals() if name.startswith("test_message_"))


def message_of(call: Callable[[], object]) -> str:
    """Return the class and text of the error of a call, as a block of the golden file holds them."""
    with pytest.raises(errors.NWBZarrError) as caught:
        call()
    return f"{type(caught.value).__name__}: {caught.value}".replace(str(Path.cwd()), "/here")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, which messages show as /here."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def expected(request: pytest.FixtureRequest) -> str:
    return blocks()[request.node.originalname or request.node.name]


def test_message_limit_not_a_number(expected: str) -> None:
    assert message_of(lambda: intake_nwbzarr.set_limits(requests=0)) == expected


def test_message_limit_too_small(expected: str) -> None:
    assert message_of(lambda: intake_nwbzarr.set_limits(bytes_in_flight="1 kB")) == expected


def test_message_keyword_is_a_storage_option(expected: str) -> None:
    call = intake_nwbzarr.open_nwb
    assert message_of(lambda: call("s3://bucket/a.nwb.zarr", anon=True)) == expected  # type: ignore[call-arg]


def test_message_location_credentials_incomplete(expected: str) -> None:
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", {"key": "k"})) == expected


def test_message_location_dandi_page(expected: str) -> None:
    assert message_of(lambda: locate("https://dandiarchive.org/dandiset/000719")) == expected


def test_message_location_link_outside(expected: str) -> None:
    location = locate("s3://bucket/day/a.nwb.zarr")
    assert message_of(lambda: location.sibling("s3://other/raw.nwb.zarr")) == expected


def test_message_location_looks_like_a_url(expected: str) -> None:
    assert message_of(lambda: locate("https:/me:pw@host/a.nwb.zarr")) == expected


def test_message_location_not_opened_here(expected: str) -> None:
    attributes = {"nwb_location": "s3://bucket/unknown.nwb.zarr"}
    assert message_of(lambda: Location.from_attributes(attributes)) == expected


def test_message_location_of_a_wrong_type(expected: str) -> None:
    location: Any = 17
    assert message_of(lambda: locate(location)) == expected


def test_message_location_scheme_unknown(expected: str) -> None:
    assert message_of(lambda: locate("s3n://bucket/a.nwb.zarr")) == expected


def test_message_storage_option_not_for_s3(expected: str) -> None:
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", {"anno": True})) == expected


def test_message_storage_option_not_true_or_false(expected: str) -> None:
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", {"anon": "perhaps"})) == expected


def test_message_storage_options_not_a_dictionary(expected: str) -> None:
    options: Any = "anon"
    assert message_of(lambda: locate("s3://bucket/a.nwb.zarr", options)) == expected


def test_message_catalog_chunks(expected: str) -> None:
    assert message_of(lambda: intake.open_nwbzarr("s3://bucket/a.nwb.zarr", chunks=0).read()) == expected


def test_message_catalog_credential_empty(expected: str) -> None:
    options = {"key": "None", "secret": "None"}
    source = intake.open_nwbzarr("s3://bucket/a.nwb.zarr", storage_options=options)
    assert message_of(source.read) == expected


def test_message_catalog_credential_masked(expected: str) -> None:
    options = {"key": "****", "secret": "****"}
    source = intake.open_nwbzarr("s3://bucket/a.nwb.zarr", storage_options=options)
    assert message_of(source.read) == expected


def test_message_catalog_variable_not_set(expected: str) -> None:
    assert message_of(intake.open_nwbzarr("s3://None/a.nwb.zarr").read) == expected


def test_message_open_consolidated_required(expected: str, here: Path) -> None:
    write_store(here / "a.nwb.zarr", {}, consolidated=False)
    assert message_of(lambda: open_hierarchy("a.nwb.zarr", consolidated=True)) == expected


def test_message_open_damaged_array(expected: str, here: Path) -> None:
    write_store(here / "a.nwb.zarr", {"x": array() | {"data_type": "int17"}})
    assert message_of(lambda: open_hierarchy("a.nwb.zarr")["x"]) == expected


def test_message_open_damaged_document(expected: str, here: Path) -> None:
    (here / "zarr.json").write_text('{"zarr_format": 3, "node_type": "gr')
    assert message_of(lambda: open_hierarchy(here)) == expected


def test_message_open_file_that_is_not_zarr(expected: str, here: Path) -> None:
    (here / "notes.txt").write_text("This is not a Zarr store.")
    assert message_of(lambda: open_hierarchy("notes.txt")) == expected


def test_message_open_folder_that_is_not_zarr(expected: str, here: Path) -> None:
    (here / "notes.txt").write_text("This is not a Zarr store.")
    assert message_of(lambda: open_hierarchy(here)) == expected


def test_message_open_hdf5_file_that_is_not_nwb(expected: str, here: Path) -> None:
    import h5py

    with h5py.File(here / "a.h5", "w") as file:
        file["x"] = 1
    assert message_of(lambda: open_hierarchy("a.h5")) == expected


def test_message_open_link_in_a_circle(expected: str, here: Path) -> None:
    links = [{"name": "x", "source": ".", "path": "/a/x"}]
    write_store(here / "a.nwb.zarr", {"a": group(_LINKS=links)})
    assert message_of(lambda: open_hierarchy("a.nwb.zarr").resolve("a/x")) == expected


def test_message_open_node_not_found(expected: str, here: Path) -> None:
    write_store(here / "a.nwb.zarr", {"processing": group(), "processing/units": group()})
    assert message_of(lambda: open_hierarchy("a.nwb.zarr")["units"]) == expected


def test_message_open_nothing_stored(expected: str, here: Path) -> None:
    assert message_of(lambda: open_hierarchy("missing.nwb.zarr")) == expected


def test_message_open_zarr_that_is_not_nwb(expected: str, here: Path) -> None:
    write_store(here / "a.zarr", {"": group(), "x": array()})
    assert message_of(lambda: open_hierarchy("a.zarr")) == expected


def message_in(path: Path, call: Callable[[], object]) -> str:
    """Return `message_of` with LOCATION in place of a session's location."""
    return message_of(call).replace(f"file://{path}", "LOCATION")


def test_message_accessor_attributes_missing(expected: str) -> None:
    assert message_of(lambda: xr.Dataset().nwb.location) == expected


def test_message_accessor_several_objects(expected: str, ecephys: Path) -> None:
    dataset = xr.open_dataset(ecephys, engine="nwbzarr")
    assert message_of(lambda: dataset.nwb.object) == expected


def test_message_group_is_an_array(expected: str, ecephys: Path) -> None:
    group = "acquisition/sync/data"
    assert message_in(ecephys, lambda: xr.open_dataset(ecephys, engine="nwbzarr", group=group)) == expected


def test_message_group_matches_nothing(expected: str, ecephys: Path) -> None:
    group = "acquisition/x*"
    assert message_in(ecephys, lambda: xr.open_dataset(ecephys, engine="nwbzarr", group=group)) == expected


def test_message_group_of_a_wrong_type(expected: str, ecephys: Path) -> None:
    assert message_of(lambda: xr.open_dataset(ecephys, engine="nwbzarr", group=7)) == expected


def test_message_index_all_timestamps(expected: str) -> None:
    index = RegularTimeIndex.from_rate(0.0, 30_000.0, 108_000_000)
    assert message_of(index.to_pandas_index) == expected


def test_message_index_not_numeric(expected: str) -> None:
    assert message_of(lambda: IrregularTimeIndex.from_array(["a", "b"])) == expected


def test_message_index_timestamps_do_not_ascend(expected: str) -> None:
    coords = IrregularTimeIndex.from_array(StoredTimes([1.0, 3.0, 2.0]), source="'lick'").coordinates()
    assert message_of(lambda: xr.Dataset(coords=coords).sel(time=1.0)) == expected


def test_message_index_timestamps_hold_nan(expected: str) -> None:
    coords = IrregularTimeIndex.from_array(StoredTimes([1.0, np.nan, 2.0]), source="'lick'").coordinates()
    assert message_of(lambda: xr.Dataset(coords=coords).sel(time=1.0)) == expected


def test_message_plot_color(expected: str, ecephys: Path) -> None:
    dataset = xr.open_dataset(ecephys, engine="nwbzarr")
    assert message_of(lambda: dataset.nwb.plot.raster(color="ultraviolet")) == expected


def test_message_plot_raster_of_several_units(expected: str, ecephys: Path) -> None:
    dataset = xr.open_dataset(ecephys, engine="nwbzarr")
    assert message_of(lambda: dataset.nwb.plot.raster(events=[1.0], window=(0, 1))) == expected


def test_message_plot_unit_unknown(expected: str, ecephys: Path) -> None:
    dataset = xr.open_dataset(ecephys, engine="nwbzarr")
    assert message_of(lambda: dataset.nwb.plot.raster(99)) == expected


def test_message_pynapple_timestamps_do_not_ascend(expected: str, ecephys: Path) -> None:
    dataset = xr.open_dataset(ecephys, engine="nwbzarr").isel(sync_time=[3, 1, 2])
    assert message_of(lambda: dataset.nwb.to_pynapple("sync")) == expected


def test_message_select_no_sample_at_a_time(expected: str, ecephys: Path) -> None:
    sync = xr.open_dataset(ecephys, engine="nwbzarr", group="acquisition/sync")
    assert message_of(lambda: sync.sel(time=-1.0)) == expected


def test_message_select_position_out_of_bounds(expected: str, ecephys: Path) -> None:
    sync = xr.open_dataset(ecephys, engine="nwbzarr", group="acquisition/sync", cache=False)
    assert message_of(lambda: sync.xindexes["time"].isel({"time": np.array([10**6])})) == expected


def test_message_select_slice_with_a_method(expected: str, ecephys: Path) -> None:
    sync = xr.open_dataset(ecephys, engine="nwbzarr", group="acquisition/sync")
    assert message_of(lambda: sync.sel(time=slice(0, 1), method="nearest")) == expected


def test_message_session_mismatch(expected: str) -> None:
    one, other = (
        xr.Dataset(attrs={"identifier": name, "nwb_location": f"s3://lab/{name}.nwb.zarr"})
        for name in ("monday", "tuesday")
    )
    assert message_of(lambda: check_same_session(one, other, "events")) == expected


def test_message_sweeps_none(expected: str, ecephys: Path) -> None:
    dataset = xr.open_dataset(ecephys, engine="nwbzarr")
    assert message_in(ecephys, dataset.nwb.sweeps) == expected


def test_message_time_reference_not_a_date(expected: str) -> None:
    assert message_of(lambda: reference_time({"session_start_time": "yesterday"}, "The session")) == expected


class StoredTimes:
    """Timestamps that an index takes for stored ones."""

    def __init__(self, times: list[float]) -> None:
        self.times = np.array(times)
        self.shape, self.dtype, self.chunks = self.times.shape, self.times.dtype, (len(times),)

    def read(self, key: tuple[Any, ...], /) -> np.ndarray[Any, Any]:
        return self.times[key]
