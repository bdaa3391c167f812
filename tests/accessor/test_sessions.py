"""Objects of two sessions: refused where their times would be mixed, and never taken for one session."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from pynwb import TimeSeries

from intake_nwbzarr.errors import AccessorError, SelectionError, SessionMismatchError
from tests.session_files import empty_session, opened, write

MINIMAL: dict[str, Any] = {"data_vars": "minimal", "coords": "minimal", "compat": "override"}


def session(folder: Path, identifier: str, trains: list[list[float]], ids: list[int]) -> Path:
    nwbfile = empty_session()
    nwbfile.fields["identifier"] = identifier
    nwbfile.add_unit_column("quality", "as judged by hand")
    for unit, times in zip(ids, trains, strict=True):
        nwbfile.add_unit(spike_times=times, id=unit, quality=identifier, obs_intervals=[[0.0, 10.0]])
    for start in range(4):
        nwbfile.add_trial(start_time=float(start), stop_time=start + 0.5)
    nwbfile.add_acquisition(TimeSeries(name="speed", data=np.arange(40.0), unit="m/s", rate=10.0))
    times = np.cumsum(np.arange(1.0, 6.0)) / 7
    nwbfile.add_acquisition(TimeSeries(name="lick", data=np.arange(5.0), unit="V", timestamps=times))
    return write(folder, nwbfile, f"{identifier}.nwb.zarr")


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sessions")
    one = session(folder, "monday", [[1.0, 2.0], [3.0]], [0, 1])
    return one, session(folder, "tuesday", [[5.0], [6.0, 7.0]], [0, 1])


@pytest.fixture(scope="module")
def other_units(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two sessions whose units have other ids, and equally many spikes."""
    folder = tmp_path_factory.mktemp("rows")
    one = session(folder, "monday", [[1.0, 2.0], [3.0]], [10, 11])
    return one, session(folder, "tuesday", [[5.0], [6.0, 7.0]], [20, 21])


CALLS: dict[str, Callable[[Path, Path], Any]] = {
    "align, a table": lambda a, b: series(a).nwb.align(opened(b, "intervals/trials"), (0, 0.2)),
    "align, a session": lambda a, b: series(a).nwb.align(opened(b), (0, 0.2), on="trials_start_time"),
    "align, a node": lambda a, b: series(a).nwb.align(
        xr.open_datatree(b, engine="nwbzarr")["intervals/trials"].to_dataset(), (0, 0.2)
    ),
    "align, a column": lambda a, b: series(a).nwb.align(opened(b, "intervals/trials").start_time, (0, 0.2)),
    "align, later": lambda a, b: series(a).nwb.align(opened(b, "intervals/trials").start_time + 1, (0, 0.2)),
    "align, loaded": lambda a, b: series(a).nwb.align(opened(b, "intervals/trials").load(), (0, 0.2)),
    "align, of dask": lambda a, b: series(a).nwb.align(opened(b, "intervals/trials", chunks={}), (0, 0.2)),
    "align, sent": lambda a, b: series(a).nwb.align(
        pickle.loads(pickle.dumps(opened(b)["trials_start_time"])), (0, 0.2)
    ),
    "align, a DataFrame": lambda a, b: series(a).nwb.align(opened(b).nwb.to_dataframe("trials"), (0, 0.2)),
    "restrict, intervals": lambda a, b: series(a).nwb.restrict(opened(b).nwb.intervals("trials")),
    "align units": lambda a, b: opened(a, "units").nwb.align(opened(b, "intervals/trials"), (0, 1), bin=0.1),
    "align an array": lambda a, b: opened(a)["speed"].nwb.align(opened(b, "intervals/trials"), (0, 0.2)),
    "align a node": lambda a, b: xr.open_datatree(a, engine="nwbzarr")["acquisition/speed"].nwb.align(
        opened(b, "intervals/trials"), (0, 0.2)
    ),
    "resample": lambda a, b: series(a).nwb.resample_like(opened(b, "acquisition/lick"), "nearest"),
    "resample, an array": lambda a, b: series(a).nwb.resample_like(opened(b)["lick"], "nearest"),
    "restrict": lambda a, b: series(a).nwb.restrict(0, opened(b, "intervals/trials").stop_time[2]),
    "restrict to epochs": lambda a, b: series(a).nwb.restrict(opened(b, "intervals/trials")),
    "label": lambda a, b: series(a).nwb.label(xr.open_datatree(b, engine="nwbzarr")["intervals/trials"]),
    "bin": lambda a, b: opened(a, "units").nwb.bin(0.5, stop=opened(b, "intervals/trials").stop_time[3]),
    "raster": lambda a, b: opened(a, "units").nwb.plot.raster(
        0, events=opened(b, "intervals/trials"), window=(0, 1)
    ),
    "plot": lambda a, b: series(a).nwb.plot.traces(start=opened(b, "intervals/trials").start_time[1]),
}


def series(path: Path) -> xr.Dataset:
    return opened(path, "acquisition/speed")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_is_given_from_another_session_is_refused(
    paths: tuple[Path, Path], call: Callable[[Path, Path], Any]
) -> None:
    one, other = paths
    with pytest.raises(SessionMismatchError) as caught:
        call(one, other)
    assert caught.value.found == f"'tuesday' in file://{other}"
    assert caught.value.expected == f"'monday' in file://{one}"
    assert caught.value.location == f"file://{one}"
    call(one, one)


def test_a_copy_of_a_session_is_the_same_session(paths: tuple[Path, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.nwb.zarr"
    shutil.copytree(paths[0], copy)
    for name in ("align, a table", "resample, an array", "restrict"):
        CALLS[name](paths[0], copy)
    halves = [series(paths[0]).isel(time=slice(20)), series(copy).isel(time=slice(20, None))]
    assert xr.concat(halves, "time").nwb.nwbfile.identifier == "monday"


def test_times_of_another_file_are_compared_on_purpose_without_what_says_their_session(
    paths: tuple[Path, Path],
) -> None:
    one, (trials, lick) = series(paths[0]), (opened(paths[1], "intervals/trials"), opened(paths[1])["lick"])
    with pytest.raises(SessionMismatchError) as caught:
        one.nwb.align(trials, (0, 0.2))
    assert "events.drop_attrs(deep=False)" in caught.value.next_step
    expected = one.nwb.align(trials.start_time.values, (0, 0.2)).data.values
    aligned = one.nwb.align(trials.drop_attrs(deep=False), (0, 0.2))
    np.testing.assert_array_equal(aligned.data.values, expected)
    with pytest.raises(SessionMismatchError) as caught:
        one.nwb.resample_like(lick, "nearest")
    assert "other.drop_encoding()" in caught.value.next_step
    assert one.nwb.resample_like(lick.drop_encoding(), "nearest").data.size == lick.size


def test_objects_that_say_no_session_are_taken_as_they_are(paths: tuple[Path, Path]) -> None:
    one = series(paths[0])
    plain = xr.Dataset({"start_time": ("trial", [0.5, 1.0])})
    assert one.nwb.align(plain, (0, 0.2)).sizes["trial"] == 2
    assert (
        one.drop_attrs(deep=False).nwb.align(opened(paths[1], "intervals/trials"), (0, 0.2)).sizes["trial"]
        == 4
    )


@pytest.mark.parametrize(
    "combined",
    [
        lambda a, b: xr.concat([series(a), series(b)], "time"),
        lambda a, b: xr.concat([opened(a, "acquisition/lick"), opened(b, "acquisition/lick")], "time"),
        lambda a, b: xr.concat([series(a), series(b).isel(time=slice(30))], "session", join="outer"),
        lambda a, b: xr.merge([series(a), opened(b)[["lick"]]], combine_attrs="override"),
        lambda a, b: series(a).assign(lick=opened(b)["lick"])[["lick"]],
        lambda a, b: xr.concat([opened(a, "units"), opened(b, "units")], "unit", **MINIMAL),
        lambda a, b: pickle.loads(pickle.dumps(xr.concat([series(a), series(b)], "time"))),
    ],
)
def test_several_sessions_in_one_dataset_have_no_one_file(
    paths: tuple[Path, Path], combined: Callable[[Path, Path], xr.Dataset]
) -> None:
    both = combined(*paths)
    with pytest.raises(AccessorError, match="several sessions"):
        _ = both.nwb.nwbfile
    with pytest.raises(AccessorError, match="several sessions"):
        _ = both.nwb.location
    assert combined(paths[0], paths[0]).nwb.nwbfile.identifier == "monday"


def test_attributes_that_differ_can_be_dropped_when_sessions_are_pooled(paths: tuple[Path, Path]) -> None:
    pooled = xr.concat(
        [opened(path, "intervals/trials") for path in paths], "trial", combine_attrs="drop_conflicts"
    )
    assert pooled.attrs["neurodata_type"] == "TimeIntervals"
    with pytest.raises(AccessorError) as caught:
        _ = pooled.nwb.location
    assert caught.value.expected == "nwb_location"


READERS: dict[str, Callable[[xr.Dataset], Any]] = {
    "ragged": lambda units: units.nwb.ragged("spike_times")[-1],
    "a column like it": lambda units: units.nwb.ragged("obs_intervals")[0],
    "bin": lambda units: units.nwb.bin(1.0, stop=9.0),
    "align": lambda units: units.nwb.align([1.0], (0, 1), bin=0.1),
    "compact": lambda units: units.nwb.compact(),
    "to_dataframe": lambda units: units.nwb.to_dataframe(),
    "to_pynapple": lambda units: units.nwb.to_pynapple(),
    "restrict": lambda units: units.nwb.restrict(0, 5),
    "raster": lambda units: units.nwb.plot.raster(),
}


@pytest.mark.parametrize("chunks", [None, {}], ids=["in memory", "of dask"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_rows_of_two_sessions_that_claim_the_same_values_are_an_error(
    other_units: tuple[Path, Path], read: Callable[[xr.Dataset], Any], chunks: Any
) -> None:
    units = xr.concat([opened(path, "units", chunks=chunks) for path in other_units], "unit", **MINIMAL)
    with pytest.raises(SelectionError, match="claim the same values"):
        read(units)


def test_one_row_of_each_of_two_sessions_is_known_by_what_else_differs(paths: tuple[Path, Path]) -> None:
    # Unit 1 of one session and unit 0 of the other have one spike each, at the same place.
    first = opened(paths[0], "units").isel(unit=[0])
    second = opened(paths[0], "units").isel(unit=[0]).load()
    same = xr.concat([first, second], "unit", **MINIMAL)
    assert same.nwb.ragged("spike_times")[1].tolist() == [1.0, 2.0]
    relabelled = same.assign_coords(unit=[0, 7])
    with pytest.raises(SelectionError, match=r"rows 0 and 1 .* claim the same values"):
        relabelled.nwb.ragged("spike_times")[1]
    of_another = opened(paths[1], "units").isel(unit=[1]).assign_coords(unit=[0])
    of_another["spike_times_start"] = second.spike_times_start
    with pytest.raises(SelectionError, match="claim the same values"):
        xr.concat([first, of_another], "unit", **MINIMAL).nwb.ragged("spike_times")[1]


def test_rows_that_are_taken_twice_are_read_twice(paths: tuple[Path, Path]) -> None:
    units = opened(paths[0], "units").isel(unit=[1, 0, 0, 1])
    for each in (units, units.load()):
        assert [row.tolist() for row in each.nwb.ragged("spike_times")] == [
            [3.0],
            [1.0, 2.0],
            [1.0, 2.0],
            [3.0],
        ]
        counts = each.nwb.bin(1.0, stop=4.0)
        values = counts.spike_counts.values if isinstance(counts, xr.Dataset) else counts.values
        assert values.tolist() == [[0, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
