"""What nobody should give, to everything that takes an argument: the right result, or one error of ours."""

import shutil
import traceback
import warnings
from collections.abc import Callable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import intake
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import intake_nwbzarr
from intake_nwbzarr.arguments import STORAGE_OPTIONS
from intake_nwbzarr.catalog.reader import NWBZarr, NWBZarrReader
from intake_nwbzarr.errors import LocationError, NWBZarrError, NWBZarrWarning, OptionError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.location.options import PACKAGE_OPTIONS, S3_PUBLIC, S3_SECRET
from intake_nwbzarr.transport.open import open_transport

CANARY = "Canary4f1d"

ODD: list[Any] = [
    None, "", "a\ud800", "a\0b", "\n", "x" * 5000, "/" + "x" * 5000, "🧠", CANARY, b"", b"x",
    0, -1, 10**30, 1.5, float("nan"), float("inf"), 1j, True, False,
    np.int64(3), np.float32(2), np.bool_(True), np.datetime64("2020"), np.array([1, 2]), np.str_("absent"),
    [], (), {}, set(),
    ["x"], [1], [None], {1}, {"a": 1}, {1: 2}, {None: None}, {"\ud800": 1}, iter([]), range(3),
    Path("absent"), Path("/absent"), object(), len, type, Ellipsis,
]  # fmt: skip

type Call = Callable[[str, Any], object]

LOCATIONS: dict[str, Call] = {
    "locate": lambda _, odd: locate(odd),
    "open_nwb": lambda _, odd: intake_nwbzarr.open_nwb(odd),
    "open_hierarchy": lambda _, odd: intake_nwbzarr.open_hierarchy(odd),
    "consolidate": lambda _, odd: intake_nwbzarr.consolidate(odd, dry_run=True),
    "verify": lambda _, odd: intake_nwbzarr.verify(odd),
    "snapshot": lambda _, odd: intake_nwbzarr.snapshot(odd, path="odd.snapshot.zip"),
    "snapshot of several": lambda _, odd: intake_nwbzarr.snapshot([odd], path="odd.snapshot.zip"),
    "download": lambda _, odd: intake_nwbzarr.download(odd, "odd.nwb.zarr"),
    "convert": lambda _, odd: intake_nwbzarr.convert(odd, "odd.nwb.zarr", dry_run=True),
    "source": lambda _, odd: intake.open_nwbzarr(odd).read(),
    "reader": lambda _, odd: NWBZarrReader(odd).read(),
    "data": lambda _, odd: repr(NWBZarr(odd)),
    "engine": lambda _, odd: engine().open_dataset(odd),
    "engine, tree": lambda _, odd: engine().open_datatree(odd),
    "engine, groups": lambda _, odd: engine().open_groups_as_dict(odd),
}
OPTIONS: dict[str, Call] = {
    "locate": lambda session, odd: locate(session, odd),
    "open_nwb": lambda session, odd: intake_nwbzarr.open_nwb(session, odd),
    "open_dataset": lambda session, odd: xr.open_dataset(session, engine="nwbzarr", storage_options=odd),
    "download": lambda session, odd: intake_nwbzarr.download(session, "odd.nwb.zarr", odd),
    "convert": lambda session, odd: intake_nwbzarr.convert(session, "odd.nwb.zarr", odd, dry_run=True),
    "convert to": lambda session, odd: intake_nwbzarr.convert(
        session, "odd.nwb.zarr", destination_options=odd, dry_run=True
    ),
    "source": lambda session, odd: intake.open_nwbzarr(session, storage_options=odd).yaml(),
    "reader": lambda session, odd: repr(NWBZarrReader(session, storage_options=odd).data),
    "chunks": lambda session, odd: intake.open_nwbzarr(session, chunks=odd).read(),
    "chunks by dimension": lambda session, odd: intake.open_nwbzarr(session, chunks={"time": odd}).read(),
    "chunks of a tree": lambda session, odd: NWBZarrReader(session, chunks=odd).to_datatree(),
}
KEYWORDS = (
    "group", "snapshot", "verify", "mask_and_scale", "decode_times", "drop_variables", "names", "dtype",
    "share_time", "image_axes", "nonsense",
)  # fmt: skip
FUNCTIONS: dict[str, Call] = {
    "download to": lambda session, odd: intake_nwbzarr.download(session, odd),
    "progress": lambda session, odd: (
        None if callable(odd) else intake_nwbzarr.download(session, "odd.nwb.zarr", progress=odd)
    ),
    "convert to": lambda session, odd: intake_nwbzarr.convert(session, odd, dry_run=True),
    **{
        name: lambda session, odd, name=name: intake_nwbzarr.convert(  # type: ignore[misc]
            session, "odd.nwb.zarr", **({"dry_run": True} | {name: odd})
        )
        for name in ("chunk_mib", "shard_mib", "compressor", "skip_unreadable", "verify")
    },
    "snapshot to": lambda session, odd: intake_nwbzarr.snapshot(session, path=odd),
    "add": lambda session, odd: intake_nwbzarr.snapshot(session, path="odd.snapshot.zip", add=odd),
    "dry_run": lambda session, odd: intake_nwbzarr.consolidate(session, dry_run=odd),
    "requests": lambda _, odd: intake_nwbzarr.set_limits(requests=odd),
    "bytes": lambda _, odd: intake_nwbzarr.set_limits(bytes_in_flight=odd),
    "threads": lambda _, odd: intake_nwbzarr.set_limits(decoding_threads=odd),
    "a node": lambda session, odd: intake_nwbzarr.open_hierarchy(session)[odd],
    "a node or none": lambda session, odd: intake_nwbzarr.open_hierarchy(session).get(odd),
    "resolved": lambda session, odd: intake_nwbzarr.open_hierarchy(session).resolve(odd),
    "members": lambda session, odd: intake_nwbzarr.open_hierarchy(session).members(odd),
    "links": lambda session, odd: intake_nwbzarr.open_hierarchy(session).links(odd),
    "is there": lambda session, odd: odd in intake_nwbzarr.open_hierarchy(session),
}


# Tables, arrays and times in odd places.
ODDER: list[Any] = [
    (1, 0), (0, float("nan")), (None, None), ("a", "b"), [1, 2], np.array([[1.0, 2.0]]), np.array(["a"]),
    np.array([np.nan]), np.datetime64("NaT", "s"), np.timedelta64(1, "s"), pd.Timestamp("2020"), pd.NaT,
    pd.NA, pd.DataFrame(), pd.DataFrame({"start_time": ["x"], "stop_time": [1]}), pd.Series([1.0, 2.0]),
    xr.Dataset(), xr.DataArray([1.0, 2.0]), "units", "trials",
]  # fmt: skip
EPOCHS = pd.DataFrame({"start_time": [0.0], "stop_time": [0.1]})
AROUND = {"events": [0.1, 0.2], "window": (-0.01, 0.01)}
# Method, what it is called on, and keywords that are right.
ACCESSOR: list[tuple[str, str, dict[str, Any]]] = [
    ("align", "session", AROUND), ("align", "units", AROUND | {"bin": 0.01}), ("align", "series", AROUND),
    ("align", "array", AROUND), ("bin", "session", {"width": 0.1}), ("bin", "units", {"width": 0.1}),
    ("restrict", "session", {"start": 0.0, "stop": 0.1}), ("restrict", "array", {"start": 0.0, "stop": 0.1}),
    ("label", "session", {"epochs": "trials"}), ("label", "array", {"epochs": EPOCHS}),
    ("resample_like", "series", {"other": "trials", "method": "nearest"}),
    ("resample_like", "array", {"other": "trials", "method": "nearest"}),
    ("ragged", "units", {"name": "spike_times"}), ("spike_times", "units", {"unit": 0}),
    ("intervals", "session", {}), ("to_dataframe", "session", {}), ("to_pynapple", "session", {}),
    ("plot.raster", "units", {}), ("plot.traces", "series", {}), ("plot.image", "session", {}),
]  # fmt: skip


def engine() -> Any:
    return xr.backends.list_engines()["nwbzarr"]


@pytest.fixture
def session(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A session, and a working directory of its own; limits are as before afterwards."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(corpus_dir("icephys", "0.14.0"), tmp_path / "session.nwb.zarr")
    before = intake_nwbzarr.set_limits()
    yield str(tmp_path / "session.nwb.zarr")
    intake_nwbzarr.set_limits(
        requests=before.requests,
        bytes_in_flight=before.bytes_in_flight,
        decoding_threads=before.decoding_threads,
    )


def foreign(call: Call, session: str, values: list[Any] = ODD) -> list[str]:
    """What ended neither well nor in an error of ours."""
    ended: list[str] = []
    for odd in values:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NWBZarrWarning)
                call(session, odd)
        except NWBZarrError:
            pass
        except Exception as error:
            ended.append(f"{odd!r:.60}: {''.join(traceback.format_exception(error)[-3:])}")
    return ended


@pytest.mark.parametrize("name", LOCATIONS)
def test_odd_locations(name: str, session: str) -> None:
    assert foreign(LOCATIONS[name], session) == []


@pytest.mark.parametrize("name", OPTIONS)
def test_odd_storage_options_and_chunks(name: str, session: str) -> None:
    assert foreign(OPTIONS[name], session) == []


@pytest.mark.parametrize("name", KEYWORDS)
def test_odd_keywords(name: str, session: str) -> None:
    for function in (xr.open_dataset, xr.open_datatree, xr.open_groups):
        values = ODD if function is xr.open_dataset or name == "group" else [b"x", np.array([1, 2]), object()]
        open_with: Call = lambda there, odd, open_=function: open_(there, engine="nwbzarr", **{name: odd})  # noqa: E731
        assert foreign(open_with, session, values) == []
    if name == "nonsense":
        with pytest.raises(OptionError, match="no keyword 'nonsense'"):
            xr.open_dataset(session, engine="nwbzarr", nonsense=1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_invalid_arguments_of_functions(name: str, session: str) -> None:
    assert foreign(FUNCTIONS[name], session) == []


@pytest.mark.parametrize(("method", "on", "right"), ACCESSOR)
def test_invalid_arguments_of_the_accessor(
    method: str, on: str, right: dict[str, Any], corpus_dir: Callable[[str, str], Path]
) -> None:
    path = corpus_dir("ecephys", "0.14.0")
    group = {"session": None, "units": "units"}.get(on, "acquisition/ElectricalSeriesAP")
    dataset = xr.open_dataset(path, engine="nwbzarr", group=group)
    found: Any = (dataset["data"] if on == "array" else dataset).nwb
    for name in method.split("."):
        found = getattr(found, name)
    drawn = method.startswith("plot")
    for name, parameter in signature(found).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        odd_call: Call = lambda _, odd, name=name: found(**{**right, name: odd})  # noqa: E731
        # A picture takes its time.
        values = [b"x", "a\ud800", -1, 10**30, float("nan"), np.array([1, 2]), object(), xr.Dataset()]
        assert foreign(odd_call, "", values if drawn else [*ODD, *ODDER]) == [], name
        plt.close("all")
    if method == "ragged":
        column = dataset.nwb.ragged("spike_times")
        assert foreign(lambda _, odd: column[odd], "", [*ODD, *ODDER, slice("a", None)]) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["s3://bucket/x", "https://127.0.0.1:9/x", "memory://x", "/absent/x",
                                   "simplecache::https://127.0.0.1:9/x"])  # fmt: skip
def test_odd_values_of_every_storage_option_are_errors_that_repeat_none(place: str) -> None:
    names = (
        "anon", "key", "secret", "token", "endpoint_url", "region", "requester_pays", "instance_role",
        "addressing_style", "use_ssl", "verify", "ssl", "headers", "client_kwargs", "config_kwargs",
        "timeouts", "chunk_cache", "revalidate", "allow_external", "ship_credentials", "consolidated",
        "isolate", "nonsense", CANARY, 1, None, b"key", "\ud800", ("a", 1), "https",
    )  # fmt: skip
    nested = (
        ("client_kwargs", "verify"), ("client_kwargs", "region_name"), ("client_kwargs", "headers"),
        ("client_kwargs", "aws_access_key_id"), ("client_kwargs", 1), ("config_kwargs", "s3"),
        ("headers", "X"), ("headers", 1), ("timeouts", "connect"), ("timeouts", "attempts"),
        ("timeouts", CANARY), ("chunk_cache", "folder"), ("chunk_cache", "size"), ("isolate", "timeout"),
        ("isolate", "memory_limit"),
    )  # fmt: skip
    values = [*ODD, {"a": CANARY}, [CANARY], CANARY * 3]
    said: list[str] = []

    def use(options: dict[Any, Any]) -> None:
        try:
            location = locate(place, options)
            said.append(f"{location!r}{hash(location)}" if CANARY not in str(location.public) else "")
            if not location.option("chunk_cache"):
                open_transport(location)
        except NWBZarrError as error:
            said.append("".join(traceback.format_exception(error)))

    for value in values:
        for name in names:
            use({name: value})
        for outer, inner in nested:
            use({outer: {inner: value}})
    leaks = [text for text in said if CANARY in text]
    assert leaks == []
    assert len(said) >= len(values) * len(names)


@pytest.mark.parametrize(
    "option", ["anon", "key", "profile", "endpoint_url", "headers", "timeouts", "requester_pays"]
)
def test_a_storage_option_as_a_keyword_is_sent_to_where_it_belongs(option: str, session: str) -> None:
    given: Any = {option: CANARY}
    calls: list[Callable[[], object]] = [
        lambda: xr.open_dataset(session, engine="nwbzarr", **given),
        lambda: xr.open_datatree(session, engine="nwbzarr", **given),
        lambda: xr.open_groups(session, engine="nwbzarr", **given),
        lambda: intake_nwbzarr.open_nwb(session, **given),
        lambda: intake_nwbzarr.open_hierarchy(session, **given),
        lambda: intake_nwbzarr.consolidate(session, **given),
        lambda: intake_nwbzarr.verify(session, **given),
        lambda: intake_nwbzarr.snapshot(session, **given),
        lambda: intake_nwbzarr.download(session, "odd.nwb.zarr", **given),
        lambda: intake_nwbzarr.convert(session, "odd.nwb.zarr", **given),
        lambda: locate(session, **given),
        lambda: intake.open_nwbzarr(session, **given),
        lambda: NWBZarrReader(session, **given),
    ]
    for call in calls:
        with pytest.raises(OptionError) as caught:
            call()
        assert caught.value.found == option
        assert str(caught.value.next_step).startswith(f"Pass storage_options={{'{option}': ")
        assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    ["/", "../" * 40, "/proc/absent", "/dev/null", "/dev/null/x", "a file", "a file/x", "loop",
     "session.nwb.zarr", "session.nwb.zarr/acquisition", ".", "..", "~nobody-of-that-name/x"],
)  # fmt: skip
def test_what_is_there_is_not_written_over(target: str, session: str, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("mine")
    (tmp_path / "loop").symlink_to("loop")
    before = sorted(path.name for path in tmp_path.rglob("*"))
    calls: dict[str, Callable[[], object]] = {
        "download": lambda: intake_nwbzarr.download(session, target),
        "convert": lambda: intake_nwbzarr.convert(session, target),
        "snapshot": lambda: intake_nwbzarr.snapshot(session, path=target),
        "from a snapshot": lambda: xr.open_dataset(session, engine="nwbzarr", snapshot=target),
        "an archive": lambda: intake_nwbzarr.open_hierarchy(f"{target}.zip"),
    }
    if target.startswith(("/proc", "/dev", "a file", "~")):
        cache = {"chunk_cache": {"folder": f"{target}/cache"}}
        calls["cache"] = lambda: open_transport(locate("https://127.0.0.1:9/x", cache))
    for name, call in calls.items():
        ended = foreign(lambda _, __, call=call: call(), session, [None])  # type: ignore[misc]
        assert ended == [], name
    with pytest.raises(NWBZarrError):
        calls["download"]()
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_error_of_an_invalid_storage_option_says_what_is_expected() -> None:
    for options, wanted in (
        (
            {"client_kwargs": "{'endpoint_url': 'x'}"},
            "'client_kwargs' must be a dictionary, not an object of type str",
        ),
        ({1: 2}, "names of storage options must be strings, not an object of type int"),
        ({"region": 5.0}, "region for .* must be a string, not an object of type float"),
        ({"anon": "perhaps"}, "anon for .* must be True or False"),
        ({"timeouts": {"connect": float("nan")}}, "positive numbers"),
        ({"timeouts": {"attempts": 1.5}}, "whole number"),
    ):
        with pytest.raises(LocationError, match=wanted):
            locate("s3://bucket/x", options)
    assert locate("s3://bucket/x", {"key": 12345678, "secret": np.str_("s")}).secrets is not None


def test_every_storage_option_is_known_where_keywords_are_checked() -> None:
    # Keywords of their own: `verify` is of snapshots there, and `consolidated` may be given either way.
    keywords = {"verify", "consolidated"}
    assert (PACKAGE_OPTIONS | S3_PUBLIC | S3_SECRET) - keywords <= STORAGE_OPTIONS
    assert keywords & STORAGE_OPTIONS == set()
