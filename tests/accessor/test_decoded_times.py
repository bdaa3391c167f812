"""On decoded times every call of `ds.nwb` gives what it gives on seconds, or says to open without them."""

import datetime as dt
import inspect
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hdmf.common import VectorData
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pynwb import TimeSeries
from pynwb.event import EventsTable, TimestampVectorData
from pynwb.icephys import CurrentClampSeries
from pynwb.image import ImageSeries
from pynwb.misc import IntervalSeries

from intake_nwbzarr.accessor import NWBAccessor
from intake_nwbzarr.accessor.plot.plots import Plots
from intake_nwbzarr.accessor.times import in_seconds
from intake_nwbzarr.demo.sessions import add_pipette
from intake_nwbzarr.errors import MetadataError, OptionError
from intake_nwbzarr.mapping.time_coordinates import datetimes, reference_time
from tests.session_files import START, empty_session, write

ZERO = np.datetime64(START.replace(tzinfo=None), "ns")

# To the millisecond: datetimes hold them as they are.
random = np.random.default_rng(12)
SPIKES = [np.sort(random.integers(0, 20_000, count)) / 1000 for count in (300, 0, 200, 1)]
CHANGES = np.unique(random.integers(0, 20_000, 300)) / 1000


def session_of_milliseconds(folder: Path) -> Path:
    """Write a session with a time in everything that may have one."""
    nwbfile = empty_session()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _add_series(nwbfile)
    nwbfile.add_trial_column("cue_time", "when the cue began")
    for start, cue in ((2.0, 2.1), (3.25, np.nan), (9.504, 9.6), (np.nan, 10.0)):
        nwbfile.add_trial(start_time=start, stop_time=start + 1.5, cue_time=cue)
    columns = [
        TimestampVectorData(name="timestamp", description="when", data=[5.0, 0.25, np.nan, 2.0]),
        VectorData(name="kind", description="which", data=list("abcd")),
    ]
    nwbfile.add_events_table(EventsTable(name="licks", description="in no order", columns=columns))
    for number, spikes in enumerate(SPIKES):
        nwbfile.add_unit(
            id=7 + number,
            spike_times=spikes,
            obs_intervals=[[0.0, 4.0], [5.0, 20.0]],
            amplitudes=-spikes,
        ) if number else _first_unit(nwbfile, spikes)
    return write(folder, nwbfile, "milliseconds.nwb.zarr")


def _first_unit(nwbfile: Any, spikes: Any) -> None:
    nwbfile.add_unit_column("amplitudes", "one for each spike", index=True)
    nwbfile.add_unit(id=7, spike_times=spikes, obs_intervals=[[0.0, 20.0]], amplitudes=-spikes)


def _add_series(nwbfile: Any) -> None:
    data = np.arange(40_000.0).reshape(20_000, 2)
    nwbfile.add_acquisition(TimeSeries(name="regular", data=data, unit="V", rate=1000.0))
    positions = random.random(len(CHANGES))
    nwbfile.add_acquisition(TimeSeries(name="irregular", data=positions, unit="m", timestamps=CHANGES))
    codes = np.array([1, 2, -1, -2, 1], "int8")
    nwbfile.add_acquisition(IntervalSeries(name="on_off", data=codes, timestamps=[1.0, 2.0, 3.5, 4.0, 5.0]))
    movie = random.integers(0, 255, (5, 4, 3), "uint8")
    nwbfile.add_acquisition(ImageSeries(name="movie", data=movie, unit="n.a.", timestamps=np.arange(5) / 8))
    electrode = add_pipette(nwbfile)
    nwbfile.add_acquisition(
        CurrentClampSeries(
            name="response", data=random.random(50), electrode=electrode, gain=1.0, rate=100.0, sweep_number=1
        )
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return session_of_milliseconds(tmp_path_factory.mktemp("milliseconds"))


@pytest.fixture(autouse=True)
def without_a_screen() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


class Opened(NamedTuple):
    """A session, opened whole or in part."""

    path: Path
    options: dict[str, Any]

    def __call__(self, group: str | list[str] | None = None) -> xr.Dataset:
        return xr.open_dataset(self.path, engine="nwbzarr", group=group, **self.options)


TRIALS = "intervals/trials"
REGULAR, IRREGULAR, MOVIE = (f"acquisition/{name}" for name in ("regular", "irregular", "movie"))

# A call, and what it is on; refused ones are those that a decoded Dataset cannot answer.
CALLS: list[tuple[str, Callable[[Opened], Any]]] = [
    ("align", lambda o: o("units").nwb.align(o(TRIALS), (-1, 1), bin=0.25)),
    ("align", lambda o: o("units").nwb.align(o(TRIALS), (-1, 1), bin=0.25, on="cue_time", on_missing="drop")),
    ("align", lambda o: o("units").nwb.align([2.0, 9.504], (-1, 1), bin=0.25)),
    ("align", lambda o: o("units").nwb.compact().nwb.align(o(TRIALS).stop_time, (-1, 1), bin=0.25)),
    ("align", lambda o: o("units").nwb.align(o("events/licks"), (-1, 1), bin=0.25)),
    ("align", lambda o: o(IRREGULAR).nwb.align(o(TRIALS), (-1, 1), rate=20, method="nearest")),
    ("align", lambda o: o(IRREGULAR).nwb.align([3.0], (-1, 1), rate=20, method="ffill", gap=1)),
    ("bin", lambda o: o("units").nwb.bin(0.5)),
    ("bin", lambda o: o().nwb.bin(0.5, start=1, stop=9)),
    ("bin", lambda o: o("units").nwb.bin(1, start=o(TRIALS).start_time.load()[0], stop=9)),
    ("bin", lambda o: o("units").nwb.bin(1, stop=o(TRIALS).stop_time.load()[2])),
    ("bin", lambda o: o("events/licks").nwb.bin(1)),
    ("bin", lambda o: o(IRREGULAR).nwb.bin(1, stop=9)),
    ("align", lambda o: o().nwb.align("trials", (-1, 1), bin=0.5, name="irregular")),
    ("restrict", lambda o: o().nwb.restrict("trials").nwb.compact()),
    ("restrict", lambda o: o("units").nwb.restrict(o(TRIALS))),
    ("label", lambda o: o(["units", IRREGULAR]).nwb.label(o(TRIALS).isel(trial=[0, 2]))),
    ("start", lambda o: o("units").nwb.start),
    ("stop", lambda o: o(IRREGULAR).nwb.stop),
    ("stop", lambda o: o(TRIALS).nwb.stop),
    ("restrict", lambda o: o().nwb.restrict(1.5, 9.504).nwb.compact()),
    ("restrict", lambda o: o().nwb.restrict(o(TRIALS).start_time.load()[1], o(TRIALS).stop_time.load()[1])),
    ("restrict", lambda o: o([TRIALS, "events/licks"]).nwb.restrict(-np.inf, 3)),
    ("ragged", lambda o: list(o("units").nwb.ragged("spike_times"))),
    ("spike_times", lambda o: o("units").nwb.spike_times(9)),
    ("compact", lambda o: o("units").isel(unit=[2, 0]).nwb.compact()),
    ("intervals", lambda o: o().nwb.intervals("trials")),
    ("intervals", lambda o: o().nwb.intervals("on_off")),
    ("to_dataframe", lambda o: o("units").nwb.to_dataframe()),
    ("to_dataframe", lambda o: o().nwb.to_dataframe("licks")),
    ("to_dataframe", lambda o: o().nwb.to_dataframe("irregular")),
    # Of stored times the rate and the start are known once they are read, as datetimes are.
    ("describe", lambda o: o(REGULAR).nwb.describe()),
    ("describe", lambda o: o().nwb.describe().drop(columns=["rate", "start", "duration"])),
    ("sweeps", lambda o: o().nwb.sweeps()),
    *(
        ("to_pynapple", lambda o, name=name: o().nwb.to_pynapple(name))
        for name in ("regular", "irregular", "units", "trials", "licks")
    ),
    ("plot.raster", lambda o: o("units").nwb.plot.raster()),
    ("plot.raster", lambda o: o("units").nwb.plot.raster([9, 7], start=2, stop=5)),
    ("plot.raster", lambda o: o("units").nwb.plot.raster(9, events=o(TRIALS).cue_time, window=(-1, 1))),
    ("plot.traces", lambda o: o().nwb.plot.traces("regular")),
    ("plot.traces", lambda o: o(REGULAR).nwb.plot.traces(start=2, stop=2.5)),
    ("plot.traces", lambda o: o(IRREGULAR).nwb.plot.traces(start=o(TRIALS).start_time.load()[0])),
    ("plot.image", lambda o: o(MOVIE).nwb.plot.image(time=0.26)),
    ("plot.image", lambda o: o().nwb.plot.image("movie")),
    ("location", lambda o: o().nwb.location),
    ("nwbfile", lambda o: o().nwb.nwbfile.trials["start_time"].data[:]),
    ("object", lambda o: o("intervals/trials").nwb.object["start_time"].data[:]),
]  # fmt: skip

REFUSED: list[tuple[str, Callable[[Opened], Any]]] = [
    ("resample_like", lambda o: o(REGULAR).nwb.resample_like(o(IRREGULAR), "nearest")),
    ("resample_like", lambda o: o().nwb.resample_like(o(REGULAR), "linear")),
]  # fmt: skip


def plain(result: Any) -> Any:
    """A result as numbers and text, its times in seconds, whichever form they had."""
    if isinstance(result, Axes):
        return {
            "lines": [plain(line.get_xydata()) for line in result.get_lines()],
            "events": [plain(each.get_positions()) for each in result.collections],
            "images": [plain(image.get_array().data) for image in result.images],
            "text": (result.get_title(), result.get_xlabel(), result.get_ylabel()),
            "ends": (result.get_xlim(), result.get_ylim()),
        }
    if isinstance(result, xr.DataTree):
        return {place: plain(node.to_dataset()) for place, node in result.subtree_with_keys}
    if isinstance(result, xr.DataArray):
        return plain(result.to_dataset(name="result"))
    if isinstance(result, xr.Dataset):
        return {name: (each.dims, plain(each.values)) for name, each in result.variables.items()}
    if isinstance(result, pd.DataFrame):
        columns = {name: plain(column.to_numpy()) for name, column in result.items()}
        return plain(result.index.to_numpy()), columns
    if type(result).__module__.startswith("pynapple"):
        return _of_pynapple(result)
    if isinstance(result, list):
        return [plain(each) for each in result]
    if isinstance(result, np.ndarray) and result.dtype.kind == "M":
        return ((result - ZERO) / np.timedelta64(1, "s")).tolist()
    if isinstance(result, np.ndarray):
        return [plain(each) for each in result] if result.dtype.kind == "O" else result.tolist()
    if isinstance(result, np.datetime64 | dt.datetime):
        return plain(np.array([result], "datetime64[ns]"))[0]
    return result


def _of_pynapple(result: Any) -> Any:
    metadata = {
        name: plain(np.asarray(result.get_info(name))) for name in getattr(result, "metadata_columns", [])
    }
    if type(result).__name__ == "TsGroup":
        return {unit: plain(result[unit].t) for unit in result.keys()}, plain(result.time_support), metadata  # noqa: SIM118 - no dict
    if type(result).__name__ == "IntervalSet":
        return plain(np.asarray(result.values)), metadata
    values = plain(np.asarray(result.values)) if hasattr(result, "values") else None
    return plain(result.t), values, plain(result.time_support), metadata


def names(calls: list[tuple[str, Callable[[Opened], Any]]]) -> list[Any]:
    return [pytest.param(call, id=f"{name}-{place}") for place, (name, call) in enumerate(calls)]


@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.MappingWarning")
@pytest.mark.parametrize("call", names(CALLS))
def test_a_call_on_decoded_times_gives_what_it_gives_on_seconds(
    path: Path, call: Callable[[Opened], Any]
) -> None:
    expected, found = (plain(call(Opened(path, {"decode_times": decode}))) for decode in (False, True))
    np.testing.assert_equal(found, expected)


@pytest.mark.parametrize(
    "keywords", [{}, {"method": "linear"}, {"rate": 20, "method": "nearest"}, {"on_missing": "drop"}]
)
def test_decoded_times_that_are_evenly_spaced_are_aligned_as_regular_ones(
    path: Path, keywords: dict[str, Any]
) -> None:
    expected, found = (
        opened(REGULAR).nwb.align(opened(TRIALS), (-0.5, 0.5), **keywords)
        for opened in (Opened(path, {"decode_times": decode}) for decode in (False, True))
    )
    np.testing.assert_allclose(found.data, expected.data, rtol=1e-6)
    np.testing.assert_array_equal(found.lag, expected.lag)
    if "lag_offset" in expected.coords:
        np.testing.assert_allclose(found.lag_offset, expected.lag_offset, rtol=0, atol=1e-9)


@pytest.mark.parametrize("call", names(REFUSED))
def test_a_call_that_needs_seconds_says_how_to_have_them(path: Path, call: Callable[[Opened], Any]) -> None:
    call(Opened(path, {}))
    with pytest.raises(OptionError, match=r"are datetimes, .* Open the session without decode_times=True\."):
        call(Opened(path, {"decode_times": True}))


def test_every_call_is_among_those_tried() -> None:
    known = {name for name, _ in inspect.getmembers(NWBAccessor) if not name.startswith("_")} - {
        "page",
        "plot",
    }
    known |= {f"plot.{name}" for name, _ in inspect.getmembers(Plots) if not name.startswith("_")}
    assert {name for name, _ in CALLS + REFUSED} == known


@pytest.mark.parametrize("options", [{}, {"chunks": {}}])
def test_spikes_are_counted_whichever_of_units_and_events_is_decoded(
    path: Path, options: dict[str, Any]
) -> None:
    opened = [Opened(path, {"decode_times": decode, **options}) for decode in (False, True)]
    counts = [
        units("units").nwb.align(events(TRIALS), (-1, 1), bin=0.5).spike_counts
        for units in opened
        for events in opened
    ]
    assert {each.chunks is None for each in counts} == {not options}
    for each in counts:
        np.testing.assert_array_equal(each.values, counts[0].values)
    assert counts[0].sum() > 0


def test_nothing_is_read_of_decoded_spikes_until_counts_are(path: Path) -> None:
    from intake_nwbzarr import track_requests

    units = xr.open_dataset(path, engine="nwbzarr", group="units", decode_times=True)
    units.nwb.bin(1, stop=20)
    with track_requests() as log:
        counts = units.nwb.bin(1, stop=20)
    assert log.requests == 0
    assert counts.spike_counts.sum() == sum(map(len, SPIKES))
    assert units.nwb.spike_times(7).dtype == np.float64


def test_datetimes_without_the_session_they_count_from_say_so(path: Path) -> None:
    units = xr.open_dataset(path, engine="nwbzarr", group="units", decode_times=True)
    del units.attrs["timestamps_reference_time"], units.attrs["session_start_time"]
    for call in (lambda: units.nwb.spike_times(7), lambda: units.nwb.bin(1, stop=2), units.nwb.plot.raster):
        with pytest.raises(MetadataError, match="Open it without decode_times=True") as raised:
            call()
        assert raised.value.location == path.as_uri()


@settings(max_examples=100, deadline=None)
@given(
    nanoseconds=st.lists(st.integers(-(2**53), 2**53), max_size=5),
    zone=st.integers(-12, 14),
)
@example(nanoseconds=[4_503_599_627_370_491], zone=0)  # as float64 in nanoseconds, half way between two
def test_a_time_to_the_nanosecond_comes_back_bit_for_bit(nanoseconds: list[int], zone: int) -> None:
    zero = dt.datetime(2024, 5, 1, 12, 0, 0, 123456, tzinfo=dt.timezone(dt.timedelta(hours=zone)))
    attributes = {"timestamps_reference_time": zero.isoformat()}
    seconds = np.array([number / 10**9 for number in nanoseconds] + [np.nan])
    decoded = datetimes(seconds, reference_time(attributes))
    np.testing.assert_array_equal(in_seconds(decoded, attributes, "these"), seconds)
    np.testing.assert_array_equal(
        in_seconds(decoded.astype(object).astype("M8[ns]"), attributes, "x"), seconds
    )


def test_times_of_every_form_are_the_same_window(path: Path) -> None:
    session = Opened(path, {})()
    expected = session.nwb.restrict(2.0, 3.5)
    instants = START + dt.timedelta(seconds=2), START + dt.timedelta(seconds=3.5)
    for start, stop in (
        (session.trials_start_time[0], session.trials_stop_time[0]),
        (np.float32(2), np.array(3.5)),
        instants,
        tuple(np.datetime64(instant.replace(tzinfo=None)) for instant in instants),
        tuple(pd.Timestamp(instant).tz_convert("Asia/Tokyo") for instant in instants),
    ):
        xr.testing.assert_equal(session.nwb.restrict(start, stop), expected)


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (
            np.datetime64("NaT", "ns"),
            "start must be .*seconds or a datetime, not .*NaT.*",
        ),
        (pd.NaT, "start must be .*seconds or a datetime, not NaT"),
        (np.timedelta64(2, "ns"), "start must be .*seconds or a datetime, not .*"),
        pytest.param(10**400, "start must be .*seconds or a datetime, not 1000.*", id="huge"),
        (
            xr.DataArray([1.0, 2.0]),
            r"start must be .*datetime, not <DataArray of float64 and shape \(2,\)>",
        ),
        (xr.DataArray("2"), "start must be .*seconds or a datetime, not '2'"),
        (dt.date(2024, 5, 1), "start must be .*seconds or a datetime, not .*"),
    ],
)
def test_what_is_no_time_is_named_as_it_was_given(path: Path, start: Any, told: str) -> None:
    session = Opened(path, {})(["units", REGULAR])
    for call in (
        lambda: session.nwb.restrict(start, 9),
        lambda: session.nwb.bin(1, start=start),
        lambda: session.nwb.plot.raster(start=start),
        lambda: session.nwb.plot.traces("regular", start=start),
    ):
        with pytest.raises(OptionError, match=told):
            call()
