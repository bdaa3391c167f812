"""The short form of the benchmarks: requests and round trips are no more than they have been."""

import json
import shutil
from pathlib import Path
from urllib.request import Request, urlopen

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from benchmarks import measure_shards as shards
from benchmarks import run, short
from benchmarks.bench import LATENCY, Bench
from benchmarks.enlarge import TEMPLATE, enlarge
from benchmarks.layouts import ECEPHYS, ICEPHYS, OPHYS, layout
from benchmarks.measure import Contender, Result, Run, again_and_again, check_same, once_each, ratio
from benchmarks.operations import fetch
from benchmarks.report import BEGIN, END, markdown, overview, publish, to_json
from benchmarks.results import Measurement, ResultsError, about_all, check_one_run, load_all
from benchmarks.run import MEASUREMENTS
from benchmarks.servers.exchanges import Exchange, round_trips
from benchmarks.servers.in_python import PythonServer
from benchmarks.servers.small import SmallServer
from benchmarks.session_files import VERSION
from benchmarks.targets import TIMES, Target, targets
from benchmarks.write_reading import SERIES, SHARD_CHUNKS
from intake_nwbzarr import open_hierarchy


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sessions")
    short.make_sessions(folder)
    return folder


@pytest.fixture(scope="module")
def counted(sessions: Path) -> dict[str, short.Counted]:
    return {counted.name: counted for counted in short.count(sessions)}


@pytest.mark.slow
@pytest.mark.parametrize("name", short.RECORD)
def test_no_more_requests_and_round_trips_than_on_record(
    name: str, counted: dict[str, short.Counted]
) -> None:
    assert not counted[name].regressed, counted[name]


@pytest.mark.slow
def test_everything_that_is_counted_has_a_record(counted: dict[str, short.Counted]) -> None:
    assert set(counted) == set(short.RECORD)


def test_one_more_request_or_round_trip_is_a_regression() -> None:
    requests, trips = short.RECORD["one series, Zarr 2"]
    assert not short.Counted("one series, Zarr 2", requests, trips, 2, 0).regressed
    assert short.Counted("one series, Zarr 2", requests + 1, trips, 2, 0).regressed
    assert short.Counted("one series, Zarr 2", requests, trips + 1, 2, 0).regressed
    assert "lower the record" in short.Counted("one series, Zarr 2", requests - 1, trips, 2, 0).verdict


@pytest.mark.slow
def test_a_worker_asks_for_no_metadata(counted: dict[str, short.Counted]) -> None:
    assert counted["a worker's first chunk"].metadata_requests == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "touched"),
    [("24 chunks of one shard", 1), ("24 chunks of two shards", 2), ("every 8th chunk", 2)],
)
def test_of_shards_nothing_is_received_but_indexes_and_the_chunks_that_are_wanted(
    part: str, touched: int, sessions: Path, counted: dict[str, short.Counted]
) -> None:
    array = sessions / "shards-zarr3.nwb.zarr" / shards.DATA
    index_bytes = 16 * SHARD_CHUNKS + 4
    needed = shards.stored_bytes(array, shards.PARTS[part])
    assert counted[part].received == needed + touched * index_bytes


@pytest.mark.slow
def test_the_chunks_of_all_shards_are_all_but_their_indexes(sessions: Path) -> None:
    array = sessions / "shards-zarr3.nwb.zarr" / shards.DATA
    files = [file.stat().st_size for file in (array / "c").glob("*/*")]
    assert len(files) == 2
    assert shards.stored_bytes(array, slice(None)) == sum(files) - 2 * (16 * SHARD_CHUNKS + 4)
    single = [shards.stored_bytes(array, slice(chunk, chunk + 1)) for chunk in (0, SHARD_CHUNKS)]
    assert shards.stored_bytes(array, slice(0, None, SHARD_CHUNKS)) == sum(single)


type Spans = list[tuple[int, int]]

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=25)


@settings(max_examples=100, deadline=None)
@given(spans)
def test_round_trips_are_the_longest_chain_of_requests_that_follow_one_another(given_spans: Spans) -> None:
    exchanges = [Exchange("GET", "/", 200, start, start + length, 0) for start, length in given_spans]
    longest: list[int] = []
    ordered = sorted(exchanges, key=lambda exchange: exchange.start)
    for place, exchange in enumerate(ordered):
        before = [longest[i] for i in range(place) if ordered[i].end <= exchange.start]
        longest.append(1 + max(before, default=0))
    # Times are whole numbers: a tenth of the latency decides nothing.
    assert round_trips(exchanges, 1.0) == max(longest, default=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a b").write_bytes(bytes(range(100)))
    array = tmp_path / "data"
    array.mkdir()
    (array / TEMPLATE).write_bytes(b"every chunk")
    return tmp_path


def test_the_server_in_python_serves_ranges_templates_and_not_found(folder: Path) -> None:
    with PythonServer(folder) as server:
        ranged = Request(f"{server.url()}/a%20b", headers={"Range": "bytes=5-9"})
        with urlopen(ranged, timeout=10) as answer:
            assert (answer.status, answer.read()) == (206, bytes(range(5, 10)))
            assert answer.headers["Content-Range"] == "bytes 5-9/100"
        with urlopen(f"{server.url()}/data/c/17/3", timeout=10) as answer:
            assert answer.read() == b"every chunk"
        with pytest.raises(OSError, match="404"):
            urlopen(f"{server.url()}/data/zarr.json", timeout=10)
        seen = server.exchanges()
        assert [(exchange.path, exchange.status) for exchange in seen] == [
            ("/a%20b", 206),
            ("/data/c/17/3", 200),
            ("/data/zarr.json", 404),
        ]
        assert [exchange.is_metadata for exchange in seen] == [False, False, True]
        assert seen[0].range == "bytes=5-9"


def test_latency_is_added_to_each_answer(folder: Path) -> None:
    with PythonServer(folder, (0, 40)) as server:
        for latency in (0, 40):
            with urlopen(f"{server.url(latency)}/a%20b", timeout=10) as answer:
                answer.read()
        quick, slow = (exchange.end - exchange.start for exchange in server.exchanges())
    assert slow >= 0.04
    assert quick < slow


@pytest.mark.slow
def test_contenders_run_in_processes_of_their_own_and_are_seen_by_the_server(sessions: Path) -> None:
    with PythonServer(sessions, (20,)) as server:
        url = f"{server.url(20)}/ophys-zarr2.nwb.zarr"
        ours = Contender("ours", "ours:open_group", {"group": short.LICK}, url)
        wrong = Contender("wrong", "ours:open_group", {"group": "nowhere"}, url)
        cold = once_each([ours, wrong], 1, server, 20)
        zarr = Contender("zarr", "plain_zarr:read_array", {"path": f"{short.LICK}/data"}, url)
        warm = again_and_again([zarr], 2, server, 20)
    opened = cold["ours"].runs[0]
    assert (opened.requests, opened.not_found) == (8, 1)
    assert opened.seconds >= 0.04
    assert opened.received > 0
    assert "NodeNotFoundError" in cold["wrong"].error
    assert cold["wrong"].runs == []
    assert [run.requests for run in warm["zarr"].runs] == [2, 2]
    assert warm["zarr"].runs[0].facts["shape"] == [short_series_length(sessions)]


def short_series_length(sessions: Path) -> int:
    return int(open_hierarchy(sessions / "ophys-zarr2.nwb.zarr")[f"{short.LICK}/data"].shape[0])  # type: ignore[union-attr]


def test_enlarged_arrays_say_so_in_their_own_and_in_the_consolidated_metadata(sessions: Path) -> None:
    store = sessions / "hour-zarr3.nwb.zarr"
    node = open_hierarchy(store)[f"{SERIES}/data"]
    assert node.shape == (3600 * 30_000, 384)  # type: ignore[union-attr]
    own = json.loads((store / SERIES / "data" / "zarr.json").read_text())
    assert tuple(own["shape"]) == node.shape  # type: ignore[union-attr]
    assert (store / SERIES / "data" / TEMPLATE).stat().st_size > 1000
    assert not (store / SERIES / "data" / "c").exists()


def test_enlarging_changes_zarr_2_as_well(sessions: Path, tmp_path: Path) -> None:
    store = tmp_path / "copy"
    shutil.copytree(sessions / "ophys-zarr2.nwb.zarr", store)
    enlarge(store, "acquisition/TwoPhotonSeries/data", (1000, 16, 16), (10, 16, 16))
    node = open_hierarchy(store)["acquisition/TwoPhotonSeries/data"]
    assert (node.shape, node.chunks) == ((1000, 16, 16), (10, 16, 16))  # type: ignore[union-attr]


def test_layouts_are_those_of_the_assets() -> None:
    assert layout(ECEPHYS)["acquisition/ElectricalSeries/data"].chunks == 93_650
    assert layout(OPHYS)["acquisition/TwoPhotonSeries/data"].grid == (2084, 1, 1)
    assert len(layout(ICEPHYS)) > 1000


def _result(name: str, *seconds: float) -> Result:
    runs = [Run(each, 0.1, 10**6, 6, 2, 1000, 1, 2, {}, ["/a"]) for each in seconds]
    return Result(name, runs)


def test_ratios_are_medians_of_paired_runs() -> None:
    assert ratio(_result("slow", 10, 30, 8), _result("fast", 1, 2, 2)) == 10
    assert np.isnan(ratio(Result("none"), _result("fast", 1)))


def test_row_6_is_judged_by_the_best_runs_and_shows_the_median() -> None:
    runs = {
        "limit: obstore + numcodecs": _result("limit: obstore + numcodecs", 3, 6, 9),
        "plain": _result("plain", 10, 4, 10),
    }
    (plain,) = (
        target
        for target in targets({"read 16MiB, 0 ms": runs})
        if target.what == "16MiB, 0 ms, plain: of the limit"
    )
    assert (plain.value, plain.middle, plain.met) == (0.75, 0.9, True)
    text = markdown({"read 16MiB, 0 ms": runs}, {})
    assert "16MiB, 0 ms, plain: of the limit | 0.75 (median 0.9) | ≥ 0.75 | met |" in text


def test_contenders_that_read_something_else_are_no_comparison() -> None:
    one, other, failed = _result("one", 1.0), _result("other", 1.0), Result("failed", error="it broke")
    one.runs[0].facts = {"shape": [3], "sum": 1.0}
    other.runs[0].facts = {"shape": [3], "sum": 2.0}
    check_same({"one": one, "failed": failed})
    check_same({"one": one, "other": other}, apart=["other"])
    with pytest.raises(ValueError, match="have not read the same"):
        check_same({"one": one, "other": other})


def test_results_survive_json() -> None:
    result = _result("one", 1.0, 2.0)
    assert Result.of(json.loads(json.dumps(result.document()))) == result


def test_the_report_says_what_is_met_missed_and_not_measured() -> None:
    measured = {
        "open Zarr 3": {"one series": _result("one series", 0.1), "NWBZarrIO": _result("NWBZarrIO", 0.5)}
    }
    found = {target.what: target.verdict for target in targets(measured)}
    assert found["one series, Zarr 3: requests"] == "met"
    assert found["one series, Zarr 3: faster than NWBZarrIO"] == "**missed**"
    assert found["one series, Zarr 2: requests"] == "not measured"
    text = markdown(measured, {"machine": "a machine"})
    assert "| 1 | one series, Zarr 3: round trips | 2 | ≤ 2 | met |" in text
    # A row of the table is named once.
    assert f"|  | one series, Zarr 3: faster than NWBZarrIO | 5{TIMES} | ≥ 10{TIMES} | **missed** |" in text
    assert "- targets: 3 of 82 met; missed or not measured: 5 in row 1, 8 in row 2" in text
    document = json.loads(to_json(measured, {}))
    assert {row["row"] for row in document["targets"]} >= {str(number) for number in range(1, 13)}


def test_every_row_of_the_table_has_a_target() -> None:
    # Row 13 has one for each way of opening that was measured.
    rows = {target.row for target in targets({"memory": {"one series": _result("one series", 1.0)}})}
    assert rows == {str(number) for number in range(1, 29)}


def test_a_figure_is_met_at_its_bound() -> None:
    assert Target("1", "at least", 10, 10, at_least=True).met
    assert Target("1", "at most", 10, 10).met
    assert not Target("1", "at least", 9.99, 10, at_least=True).met
    assert not Target("1", "at most", 10.01, 10).met


def test_publishing_replaces_what_is_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    publish(page, "new")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="has no place for a report"):
        publish(page, "new")


def test_what_was_needed_is_shown_where_it_is_known() -> None:
    read = _result("plain", 1.0)
    assert "needed" not in markdown({"window": {"plain": read}}, {})
    read.runs[0].facts = {"needed": 2_500_000}
    text = markdown({"parts": {"plain": read, "failed": Result("failed", error="it broke")}}, {})
    assert "| plain | 1 s | 6 | 2 | 1 | 0.001 MB | 2.5 MB | 0.1 s | 1 MB | 1 |" in text
    table = text.split("**parts**")[1].strip().splitlines()
    assert {line.count("|") for line in table} == {11}


def _shown(page: Path) -> str:
    """What a page shows of the run."""
    _, begin, rest = page.read_text().partition(BEGIN)
    shown, end, _ = rest.partition(END)
    assert begin
    assert end
    return shown.strip()


def test_readme_and_page_show_the_same_run() -> None:
    readme, page = _shown(run.README), _shown(run.PAGE)
    for name in ("date", "machine", "server", "versions", "targets"):
        assert f"- {name}: " in readme
    # Each of the 13 rows, by its first target.
    assert [line.split(" | ")[0] for line in readme.splitlines() if line[2:3].isdigit()] == [
        f"| {row}" for row in range(1, 14)
    ]
    assert readme in page


FIRST = {"date": "2026-01-01 10:00:00 UTC", "machine": "a machine"}
SECOND = {"date": "2026-01-02 10:00:00 UTC", "machine": "a machine"}


def _measurement(about: dict[str, str], name: str) -> Measurement:
    return Measurement(about, {f"table of {name}": {"one series": _result("one series", 1.0)}})


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stand-ins of the pages that are published to."""
    found = [tmp_path / "docs" / "performance.md", tmp_path / "README.md"]
    found[0].parent.mkdir()
    for page in found:
        page.write_text(f"{BEGIN}\nold\n{END}\n")
    monkeypatch.setattr(run, "PAGE", found[0])
    monkeypatch.setattr(run, "README", found[1])
    monkeypatch.setattr(run, "PICTURES", tmp_path / "docs" / "pictures")
    return found


def _save_results(cache: Path, later: str = "", without: str = "") -> list[str]:
    """Results of everything but one, all but one from the first run; the options that report them."""
    (cache / "results").mkdir(parents=True)
    for name in MEASUREMENTS:
        if name != without:
            about = SECOND if name == later else FIRST
            _measurement(about, name).save(cache / "results" / f"{name}.json")
    return ["--report", "--publish", "--cache", str(cache)]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"later": "growth"}, "growth from 2026-01-02 10:00:00 UTC"),
        ({"without": "fetch"}, "nothing of fetch"),
    ],
)
def test_results_that_are_not_all_from_one_run_are_published_only_when_told(
    kind: dict[str, str],
    said: str,
    tmp_path: Path,
    pages: list[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = _save_results(tmp_path / "cache", **kind)
    assert run.main(options) == 2
    message = capsys.readouterr().err
    assert said in message
    assert "open-zarr3" in message
    assert "--as-is" in message
    assert [_shown(page) for page in pages] == ["old", "old"]
    assert run.main([*options, "--as-is"]) == 0
    assert all("- date: 2026-01-01 10:00:00 UTC" in _shown(page) for page in pages)
    if "later" in kind:
        assert all("; 2026-01-02 10:00:00 UTC\n- machine: a machine\n" in _shown(page) for page in pages)


def test_one_run_is_published_on_both_pages(tmp_path: Path, pages: list[Path]) -> None:
    assert run.main(_save_results(tmp_path / "cache")) == 0
    page, readme = (_shown(page) for page in pages)
    assert readme == overview({}, FIRST).strip()
    assert readme in page
    assert "**table of open-zarr3**" in page
    assert "**table of open-zarr3**" not in readme


def test_results_are_kept_with_the_run_that_they_are_from(tmp_path: Path) -> None:
    _measurement(FIRST, "plan").save(tmp_path / "plan.json")
    found = load_all(tmp_path, ["plan", "growth"])
    assert found == {"plan": _measurement(FIRST, "plan")}
    check_one_run(found, ["plan"])
    assert about_all(found) == FIRST
    with pytest.raises(ResultsError, match="Nothing has been measured yet"):
        load_all(tmp_path, ["growth"])


@pytest.mark.parametrize("content", ['{"about": ', "[]", '{"open": {}}', '{"about": 1, "results": {}}'])
def test_a_file_of_results_that_is_none_is_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "plan.json").write_text(content)
    assert run.main(["--report", "--cache", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "plan.json does not hold results" in message
    assert "--only plan" in message


def test_clients_fetch_the_same_bytes_with_a_request_for_each_key(sessions: Path) -> None:
    array = sessions / "ophys-zarr2.nwb.zarr" / short.LICK / "data"
    keys = [str(file.relative_to(sessions / "ophys-zarr2.nwb.zarr")) for file in array.iterdir()]
    expected = {"shape": [len(keys)], "sum": sum(file.stat().st_size for file in array.iterdir())}
    with PythonServer(sessions) as server:
        for client in (fetch.own_transport, fetch.aiohttp, fetch.fsspec):
            fetched = client(f"{server.url()}/ophys-zarr2.nwb.zarr", None, keys)
            server.forget()
            assert fetched()() == expected
            assert len(server.exchanges()) == len(keys)


@pytest.mark.slow
def test_a_server_with_a_backlog_of_five_is_measured(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"12345")
    with SmallServer(tmp_path) as server:
        fetched = fetch.own_transport(server.url(), None, ["one"])()()
        seen = server.exchanges(0, 2**62)
    assert fetched == {"shape": [1], "sum": 5}
    assert [(one.path, one.status, one.size) for one in seen] == [("/one", 200, 5)]


@pytest.mark.slow
def test_parts_of_shards_are_measured_beside_what_they_need(sessions: Path, tmp_path: Path) -> None:
    root = tmp_path / "sessions" / f"v{VERSION}"
    root.mkdir(parents=True)
    (root / f"{shards.SESSION}.nwb.zarr").symlink_to(sessions / "shards-zarr3.nwb.zarr")
    with PythonServer(root, (LATENCY,)) as server:
        found = MEASUREMENTS["shards-parts"](Bench(server, None, tmp_path, 1))["parts of shards"]
    assert len(found) == 2 * len(shards.PARTS)
    for name, result in found.items():
        (read,) = result.runs
        assert read.facts["needed"] <= read.received < 1.01 * read.facts["needed"], name


def test_a_measurement_without_s3_is_left_out(sessions: Path) -> None:
    with PythonServer(sessions) as server:
        bench = Bench(server, None, sessions, 1)
        assert MEASUREMENTS["s3-zarr2"](bench) == {"open Zarr 2, S3": {}}
