"""The `nwbzarr` command, run as users run it."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import xarray as xr
from pynwb import TimeSeries
from rich.console import Console

import intake_nwbzarr
from intake_nwbzarr.checks.verify import compare
from intake_nwbzarr.cli import commands
from intake_nwbzarr.cli.catalog import scan_fields
from intake_nwbzarr.cli.locations import Session, file_names
from intake_nwbzarr.cli.main import main
from intake_nwbzarr.cli.output import progress_bar
from intake_nwbzarr.errors import LocationNotFoundError
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.scan.scan_report import ScanProgress
from intake_nwbzarr.sessions.tables.tables import Tables
from tests.conftest import CORPUS
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import empty_session, write
from tests.sessions.lab import write_lab, write_small


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    status: int
    out: str
    err: str


type Command = Callable[..., Result]


@pytest.fixture
def nwbzarr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["nwbzarr", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


def test_the_command_is_installed() -> None:
    command = Path(sys.executable).with_name("nwbzarr")
    result = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (0, f"intake-nwbzarr {intake_nwbzarr.__version__}\n")


@pytest.mark.slow
def test_the_package_runs_as_the_command() -> None:
    command = [sys.executable, "-m", "intake_nwbzarr", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (result.returncode, result.stdout) == (0, f"intake-nwbzarr {intake_nwbzarr.__version__}\n")


def test_without_a_command_there_is_help(nwbzarr: Command) -> None:
    assert "consolidate" in nwbzarr().out


def test_info_prints_the_contents_and_what_it_took(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path]
) -> None:
    result = nwbzarr("info", corpus_dir("ecephys", "0.8.0"))
    assert result.status == 0, result.err
    assert "\nZarr 2, consolidated, NWB 2." in result.out
    assert re.search(
        r"\n  ElectricalSeriesAP +ElectricalSeries +\(time: 3,000, channel: 8\) +float64 volts +"
        r"30,000 Hz, 0.0999667 s +chunks \([\d,]+, \d\) [\d.]+ kB blosc\n",
        result.out,
    )
    assert re.search(r"\n\d+ requests, [\d.]+ kB received\n", result.out)


def test_info_of_one_object_on_a_server(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], s3_server: S3Server
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "cli/a.nwb.zarr", corpus_dir("ecephys", "0.14.0"))
    result = nwbzarr("info", url, "--group", "units", "--anon", "--endpoint-url", s3_server.endpoint_url)
    assert result.status == 0, result.err
    assert "spike_times" in result.out
    assert "ElectricalSeriesAP" not in result.out


def test_info_of_several_locations_is_one_document(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], s3_server: S3Server, tmp_path: Path
) -> None:
    """Options of S3 do no harm to a folder, and an error of one location does not stop the others."""
    url = s3_server.upload(s3_server.public_bucket, "cli/several.nwb.zarr", corpus_dir("ecephys", "0.14.0"))
    options = ("--anon", "--endpoint-url", s3_server.endpoint_url, "--storage-option", "region=us-west-2")
    missing, folder = tmp_path / "nothing.nwb.zarr", corpus_dir("icephys", "0.8.0")
    result = nwbzarr("info", url, missing, folder, "--json", *options)
    assert result.status == 2
    assert result.err.startswith("Error: Nothing is stored at ")
    first, second, third = json.loads(result.out)
    assert (first["location"], first["format"], first["session"]["identifier"]) == (
        url,
        "Zarr 3",
        "corpus-ecephys",
    )
    assert (second["location"], "Nothing is stored" in second["error"]) == (str(missing), True)
    assert third["session"]["identifier"] == "corpus-icephys"
    text = nwbzarr("info", folder, url, *options)
    assert (text.status, text.err) == (0, "")
    assert text.out.index("corpus-icephys") < text.out.index(f"\n\n{url}\n")
    # Of one location, an option that it cannot have is a mistake.
    assert nwbzarr("info", folder, *options).status == 2


def test_other_storage_options_and_a_secret_among_them(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], s3_server: S3Server
) -> None:
    url = s3_server.upload(s3_server.private_bucket, "cli/secret.nwb.zarr", corpus_dir("ecephys", "0.14.0"))
    options = [f"{name}={value}" for name, value in s3_server.signed_options.items()]
    given = [part for option in options for part in ("--storage-option", option)]
    result = nwbzarr("info", url, *given, "--storage-option", 'timeouts={"attempts": 2}', "--no-chunks")
    assert result.status == 0
    warned = re.findall("Warning: The value of the storage option ([a-z]+) may be a secret", result.err)
    assert warned == ["key", "secret"]
    assert s3_server.secret not in result.err + result.out
    for wrong in ("timeouts", "timeouts={", "nothing=1"):
        result = nwbzarr("info", url, "--storage-option", wrong)
        assert (result.status, result.out) == (2, "")


def test_verify_and_consolidate_as_json(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    session = Path(shutil.copytree(corpus_dir("ophys", "0.2.0"), tmp_path / "a.nwb.zarr"))
    (planned,) = json.loads(nwbzarr("consolidate", session, "--json").out)
    assert (planned["written"], planned["document"], len(planned["added"])) == (
        True,
        ".zmetadata",
        planned["nodes"],
    )
    (found,) = json.loads(nwbzarr("verify", session, "--json").out)
    assert (found["document"], found["different"], found["unshown"]) == ("nwbzarr-verify 1.0", [], [])
    assert found["equal"] > 100
    assert {"path", "expected", "stored", "nbytes"} == found["chunks"][0].keys()


def test_check_exits_with_1_for_warnings_and_0_for_hints(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    older, newer = corpus_dir("ophys", "0.8.0"), corpus_dir("ophys", "0.14.0")
    result = nwbzarr("check", older)
    assert (result.status, result.err) == (1, "")
    assert "[zarr-2]" in result.out
    assert f"mend: nwbzarr convert {older} DESTINATION" in result.out
    assert nwbzarr("check", newer).status == 0
    both = nwbzarr("check", older, newer, "--json", "--latency", "10", "--bandwidth", "1000", "--window", "1")
    assert both.status == 1
    first, second = json.loads(both.out)
    assert (first["document"], first["ok"], second["ok"]) == ("nwbzarr-check 1.0", False, True)
    assert "zarr-2" in {each["code"] for each in first["findings"]}
    assert (first["connection"]["latency"], first["connection"]["window"]) == (0.01, 1.0)
    assert nwbzarr("check", tmp_path / "nothing.nwb.zarr").status == 2


def test_explain_explains_codes_and_errors(nwbzarr: Command) -> None:
    assert nwbzarr("explain", "stale-metadata").out.startswith("stale-metadata (error)\n")
    assert "no target" in nwbzarr("explain", "LinkError").out
    assert "small-chunks" in nwbzarr("explain").out
    result = nwbzarr("explain", "small-chunk")
    assert (result.status, result.out) == (2, "")
    assert "Did you mean 'small-chunks'?" in result.err


def test_shells_complete_codes_and_errors() -> None:
    command = Path(sys.executable).with_name("nwbzarr")
    asked = {"_NWBZARR_COMPLETE": "complete_bash", "COMP_CWORD": "2"}
    for typed, expected in (("small", ["small-chunks"]), ("Link", ["LinkError"]), ("x", [])):
        environment = {**os.environ, **asked, "COMP_WORDS": f"nwbzarr explain {typed}"}
        result = subprocess.run(
            [command], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert result.stdout.split() == expected


@pytest.mark.filterwarnings("default::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_a_warning_ends_in_its_code(nwbzarr: Command, corpus_dir: Callable[[str, str], Path]) -> None:
    assert nwbzarr("info", corpus_dir("ecephys", "0.3.0")).err.endswith(" [not-consolidated]\n")


@pytest.mark.filterwarnings("default::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_a_warning_is_shown_once(nwbzarr: Command, corpus_dir: Callable[[str, str], Path]) -> None:
    result = nwbzarr("verify", corpus_dir("icephys", "0.3.0"))
    assert result.err.count("has no consolidated metadata") == 1


def test_an_error_is_one_line_and_status_2(nwbzarr: Command, tmp_path: Path) -> None:
    result = nwbzarr("info", tmp_path / "nothing.nwb.zarr")
    assert result.status == 2
    assert result.out == ""
    assert result.err.startswith("Error: ")
    assert "nothing.nwb.zarr" in result.err
    assert len(result.err.splitlines()) == 1
    assert result.err.endswith(" [LocationNotFoundError]\n")
    assert "Cause: " in nwbzarr("explain", "LocationNotFoundError").out


@pytest.mark.parametrize("place", [1, 2, 3])
def test_debug_shows_the_traceback_wherever_it_stands(
    place: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    arguments = ["nwbzarr", "info", str(tmp_path / "nothing.nwb.zarr")]
    arguments.insert(place, "--debug")
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(LocationNotFoundError):
        main()


def test_consolidate_says_what_it_would_do_then_does_it(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    session = tmp_path / "a.nwb.zarr"
    shutil.copytree(corpus_dir("ophys", "0.2.0"), session)
    planned = nwbzarr("consolidate", session, "--dry-run")
    assert planned.status == 0, planned.err
    assert "would be written" in planned.out
    assert "+ acquisition/TwoPhotonSeries/data" in planned.out
    assert not (session / ".zmetadata").exists()
    done = nwbzarr("consolidate", session)
    assert done.status == 0, done.err
    assert (session / ".zmetadata").exists()
    assert "up to date" in nwbzarr("consolidate", session).out
    assert nwbzarr("info", session).err == ""


@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_the_examples_print_what_the_documentation_shows(
    nwbzarr: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copy(CORPUS / "ecephys_hdmf-zarr-0.8.0.nwb.zarr.zip", tmp_path / "ecephys.nwb.zarr.zip")
    shutil.unpack_archive(CORPUS / "ophys_hdmf-zarr-0.2.0.nwb.zarr.zip", tmp_path / "session.nwb.zarr")
    monkeypatch.chdir(tmp_path)
    text = (Path(intake_nwbzarr.__file__).parents[1] / "docs" / "command-line.md").read_text()
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    examples = [example for block in blocks for example in block.split("$ nwbzarr ")[1:]]
    assert len(examples) == 11
    for example in examples:
        command, _, expected = example.partition("\n")
        printed = nwbzarr(*command.split()).out.replace(str(tmp_path), "/data")
        assert len(printed.splitlines()) >= len(expected.splitlines()) > 0
        # The length of the path decides how long the table of requests, attributes and a snapshot are.
        for shown, line in zip(expected.splitlines(), printed.splitlines(), strict=False):
            if shown == "...":
                break
            if shown.startswith(
                "file:///data/sessions.parquet"
            ):  # then requests, as far as archives are not open yet, and seconds
                line, shown = (each.partition(")")[0] for each in (line, shown))
            if not shown.startswith(("location", "file:///data/ecephys", "    nwb_location", "/data/lab")):
                assert line == shown


def test_snapshot_saves_sessions_in_one_file_and_says_what(
    nwbzarr: Command,
    corpus_dir: Callable[[str, str], Path],
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "cli/c.nwb.zarr", corpus_dir("icephys", "0.14.0"))
    folder = corpus_dir("ecephys", "0.8.0")
    monkeypatch.chdir(tmp_path)
    one = nwbzarr("snapshot", folder)
    assert (one.status, one.err) == (0, "")
    name = f"{folder.name}.snapshot.zip"
    first, empty, last = one.out.splitlines()
    assert re.fullmatch(rf"file://{folder}: \d+ objects, [\d.]+ kB, verifiable by its \.zmetadata", first)
    assert empty == ""
    assert last.startswith(f"{tmp_path / name}: 1 session, ")
    both = nwbzarr("snapshot", url, "--add", "-o", name, "--anon", "--endpoint-url", s3_server.endpoint_url)
    assert both.status == 0, both.err
    assert ": 2 sessions, " in both.out
    options = s3_server.anonymous_options
    s3_server.reset()
    opened = xr.open_dataset(url, engine="nwbzarr", storage_options=options, snapshot=name, verify=False)
    assert opened.attrs["identifier"] == "corpus-icephys"
    assert s3_server.count() == 0


def test_snapshot_of_several_sessions_reports_those_that_cannot_be_opened(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    saved, missing, good = tmp_path / "s.zip", tmp_path / "nothing.nwb.zarr", corpus_dir("icephys", "0.8.0")
    alone = nwbzarr("snapshot", missing, "-o", saved)
    assert (alone.status, alone.out) == (2, "")
    assert len(alone.err.splitlines()) == 1
    assert not saved.exists()
    several = nwbzarr("snapshot", missing, good, "-o", saved)
    assert several.status == 2
    assert several.err.startswith("Error: ")
    assert "nothing.nwb.zarr" in several.err
    assert f"{saved}: 1 session, " in several.out
    assert xr.open_dataset(good, engine="nwbzarr", snapshot=saved).attrs["identifier"] == "corpus-icephys"


def test_snapshot_replaces_nothing_else(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    precious = tmp_path / "results.csv"
    precious.write_text("1,2,3")
    result = nwbzarr("snapshot", corpus_dir("icephys", "0.8.0"), "-o", precious)
    assert (result.status, result.out) == (2, "")
    assert "not a snapshot" in result.err
    assert precious.read_text() == "1,2,3"


def test_verify_counts_what_is_equal_by_type(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], s3_server: S3Server
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "cli/b.nwb.zarr", corpus_dir("ophys", "0.14.0"))
    result = nwbzarr("verify", url, "--anon", "--endpoint-url", s3_server.endpoint_url)
    assert result.status == 0, result.err
    table, _, chunks = result.out.partition("\nChunks: ")
    assert re.match(r"(\d+) of \d+ chunks stored", chunks)
    first, empty, head, *rows = table.splitlines()
    assert first.endswith(", 0 different, 0 not shown.")
    assert empty == ""
    assert head.split() == ["type", "equal", "different", "not", "shown"]
    counts = {row.split()[0]: [int(each) for each in row.split()[1:]] for row in rows}
    assert sum(equal for equal, _, _ in counts.values()) == int(first.split(": ")[1].split()[0])
    assert counts["TwoPhotonSeries"][0] >= 10


def test_verify_says_what_differs_and_what_is_not_shown_and_ends_with_1(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [corpus_dir(kind, "0.14.0") for kind in ("ecephys", "ophys")]
    with intake_nwbzarr.open_nwb(paths[0]) as nwbfile:
        # What the command prints is what is tested: a comparison with the tree of another file.
        tree = xr.open_datatree(paths[1], engine="nwbzarr")
        found = compare(nwbfile, tree, intake_nwbzarr.open_hierarchy(paths[0]))
    monkeypatch.setattr(intake_nwbzarr, "verify", lambda *_, **__: found, raising=False)
    result = nwbzarr("verify", paths[0])
    assert (result.status, result.err) == (1, "")
    assert "Differs: /: identifier\n  pynwb   'corpus-ecephys'\n  xarray  'corpus-ophys'\n" in result.out
    assert "Not shown: units\n  pynwb   the whole object\n" in result.out
    assert result.out.count("Differs: ") == len(found.different)
    assert result.out.count("Not shown: ") == len(found.unshown)


def test_verify_ends_with_2_when_it_could_not_compare(nwbzarr: Command, tmp_path: Path) -> None:
    result = nwbzarr("verify", tmp_path / "nothing.nwb.zarr")
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("Error: ")
    assert len(result.err.splitlines()) == 1
    assert nwbzarr("info", tmp_path / "nothing.nwb.zarr").status == 2


def test_what_cannot_be_written_is_not_planned_either(nwbzarr: Command, http_server: StaticServer) -> None:
    archive = CORPUS / "ophys_hdmf-zarr-0.8.0.nwb.zarr.zip"
    for place in (archive, f"{http_server.url}/a.nwb.zarr", "memory://a.nwb.zarr"):
        for options in ([], ["--dry-run"]):
            result = nwbzarr("consolidate", place, *options)
            assert (result.status, result.out) == (2, "")
            assert "cannot be written" in result.err
    assert http_server.count() == 0


@pytest.mark.filterwarnings("default::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_a_warning_is_one_line_too(nwbzarr: Command, corpus_dir: Callable[[str, str], Path]) -> None:
    result = nwbzarr("info", corpus_dir("ophys", "0.2.0"))
    assert result.status == 0, result.err
    assert result.err.startswith("Warning: ")
    assert "nwbzarr consolidate" in result.err
    assert len(result.err.splitlines()) == 1


def test_download_says_what_it_did_and_the_copy_opens(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], s3_server: S3Server, tmp_path: Path
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "cli/c.nwb.zarr", corpus_dir("icephys", "0.14.0"))
    folder = tmp_path / "c.nwb.zarr"
    options = ("--anon", "--endpoint-url", s3_server.endpoint_url)
    first = nwbzarr("download", url, folder, *options)
    assert (first.status, first.err) == (0, "")
    line, chunks = first.out.split("\n", 1)
    assert re.fullmatch(rf"{url}: (\d+) objects, [\d.]+ kB, verified, in {folder} \(\1 fetched\)\.", line)
    assert re.match(r"Chunks: \d+ of \d+ chunks stored", chunks)
    again = nwbzarr("download", url, folder, *options)
    assert re.search(r": (\d+) objects, .* \(0 fetched, \1 kept\)", again.out)
    assert "IntracellularRecordingsTable" in nwbzarr("info", folder).out


def test_a_download_that_fails_is_one_line_and_status_1(nwbzarr: Command, tmp_path: Path) -> None:
    result = nwbzarr("download", tmp_path / "nothing.nwb.zarr", tmp_path / "copy.nwb.zarr")
    assert (result.status, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert "nothing.nwb.zarr" in result.err
    assert list(tmp_path.iterdir()) == []


def test_download_shows_a_bar_on_a_terminal(
    nwbzarr: Command,
    corpus_dir: Callable[[str, str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    screen = io.StringIO()
    terminal = Console(file=screen, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(commands, "messages", terminal)
    result = nwbzarr("download", corpus_dir("icephys", "0.14.0"), tmp_path / "a.nwb.zarr")
    assert result.status == 0, result.err
    count = re.search(r": (\d+) objects", result.out)
    assert count is not None
    assert f"{count[1]}/{count[1]} objects" in screen.getvalue()
    assert "objects" not in result.err


COMMANDS = {
    "info": ([], 0),
    "verify": ([], 0),
    "snapshot": (["-o", "saved.zip"], 0),
    "download": (["copy.nwb.zarr"], 0),
    "consolidate": (["--dry-run"], 0),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_what_nobody_reads_decides_no_exit_status(
    command: str, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    session = corpus_dir("icephys", "0.14.0")
    options, status = COMMANDS[command]
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        arguments = [sys.executable, "-m", "intake_nwbzarr", command, str(session), *options]
        result = subprocess.run(
            arguments, stdout=pipe, stderr=subprocess.PIPE, cwd=tmp_path, timeout=120, check=False
        )
    assert (result.returncode, result.stderr) == (status, b"")
    # What was to be done has been done.
    assert (tmp_path / "saved.zip").exists() == (command == "snapshot")
    assert (tmp_path / "copy.nwb.zarr").exists() == (command == "download")


@pytest.mark.slow
def test_what_could_not_be_compared_is_2_whoever_reads(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        arguments = [sys.executable, "-m", "intake_nwbzarr", "verify", str(tmp_path / "nothing.nwb.zarr")]
        result = subprocess.run(arguments, stdout=pipe, stderr=pipe, timeout=120, check=False)
    assert result.returncode == 2


@pytest.mark.slow
def test_an_interrupted_command_ends_with_130_and_no_finding(http_server: StaticServer) -> None:
    http_server.fault("stall", times=100)
    # Of a shell's background job Ctrl-C is ignored, whatever it runs: here it is not.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from intake_nwbzarr.cli.main import main; main()"
    )
    arguments = [sys.executable, "-c", code, "verify", f"{http_server.url}/a.nwb.zarr"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        deadline = time.monotonic() + 60
        while not http_server.count() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, error = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert error.endswith("Aborted.\n")
    assert "Traceback" not in error


def test_chunks_that_are_not_stored_are_told_and_are_status_1_where_all_are_asked_for(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    session = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    shutil.rmtree(session / "units/spike_times/c")
    for command in (("info", session), ("info", session, "--group", "units"), ("verify", session)):
        result = nwbzarr(*command)
        assert result.status == 0
        assert "units/spike_times: 0 of 1 chunk stored; it reads as its fill value" in result.out
    assert "Chunks:" not in nwbzarr("info", session, "--no-chunks").out
    assert nwbzarr("verify", session, "--all-chunks").status == 1
    stale = nwbzarr("info", session, "--no-consolidated")
    assert (stale.status, stale.err) == (0, "")


def test_catalog_scan_writes_tables_and_says_what_failed(nwbzarr: Command, tmp_path: Path) -> None:
    lab, output = write_lab(tmp_path / "lab"), tmp_path / "table.parquet"
    result = nwbzarr(
        "catalog", "scan", lab, "-o", output, "--storage", "lab", "--requests", 20, "--threads", 2
    )
    assert result.status == 1
    assert "7 sessions (0 unchanged, 7 scanned, of which 2 failed)" in result.out
    assert "1 Zarr store without NWB data, 1 HDF5 file without NWB data" in result.out
    errors = result.err.splitlines()
    assert ["begun.nwb.zarr" in errors[0], "cut.nwb.zarr" in errors[1]] == [True, True]
    assert (
        errors[-1]
        == "Error: Some could not be read, as shown above; run the command again to try them again."
    )
    assert set(Tables(locate(output)).opened().read("sessions")["storage"].to_pylist()) == {"lab"}
    result = nwbzarr("catalog", "scan", lab / "sub-1", lab / "sub-3", "-o", tmp_path / "parts", "--snapshots")
    assert (result.status, result.err) == (0, "")
    assert len(list((tmp_path / "parts" / "objects").iterdir())) == 2


def test_names_and_texts_do_not_control_the_terminal(nwbzarr: Command, tmp_path: Path) -> None:
    session = empty_session()
    series = {"data": [1.0, 2.0], "rate": 1.0}
    session.add_acquisition(TimeSeries(name="a\x1b[2Jb", unit="\x1b[31mV", **series))
    path = write(tmp_path, session)
    for command in ("info", "verify", "check"):
        done = nwbzarr(command, path)
        assert "\x1b" not in done.out + done.err
    assert "a [2Jb" in nwbzarr("info", path).out
    assert "\x1b" not in nwbzarr("info", path, "--group", "\x1b[2J").err


def test_tables_stand_for_their_sessions(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], s3_server: S3Server, tmp_path: Path
) -> None:
    """One file beside its sessions, or a folder of parts, local or on S3; errors are those of one session."""
    lab, copies = tmp_path / "lab", tmp_path / "copies"
    for number in (1, 2):
        write_small(lab / f"sub-{number}", identifier=f"lab-{number}")
    scanned = nwbzarr("catalog", "scan", lab, "-o", lab / "sessions.parquet", "--json")
    assert json.loads(scanned.out)["scanned"] == 2
    shutil.rmtree(lab / "sub-1")
    result = nwbzarr("info", lab / "sessions.parquet", "--json")
    first, second = json.loads(result.out)
    assert (result.status, first.keys()) == (2, {"location", "error"})
    assert first["location"].endswith("sub-1/ses-1.nwb.zarr")
    assert second["session"]["identifier"] == "lab-2"
    done = nwbzarr("download", lab / "sessions.parquet", copies, "--json")
    assert done.status == 2
    assert [each.name for each in copies.iterdir()] == ["sub-2-ses-1.nwb.zarr"]
    assert json.loads(done.out)[1]["folder"] == str(copies / "sub-2-ses-1.nwb.zarr")

    options = ("--anon", "--endpoint-url", s3_server.endpoint_url)
    url = s3_server.upload(s3_server.public_bucket, "cli/tables/a.nwb.zarr", corpus_dir("icephys", "0.14.0"))
    nwbzarr("catalog", "scan", url.rpartition("/")[0], "-o", tmp_path / "parts", *options)
    tables = s3_server.upload(s3_server.public_bucket, "cli/parts", tmp_path / "parts")
    for place in (tmp_path / "parts", tables):
        result = nwbzarr("snapshot", place, "-o", tmp_path / f"{place == tables}.zip", "--json", *options)
        assert (result.status, result.err) == (0, "")
        (document,) = json.loads(result.out)
        assert (document["location"], document["verifiable"]) == (url, True)


def test_tables_name_no_files_elsewhere(nwbzarr: Command, tmp_path: Path) -> None:
    """Local files outside the folder of the tables are read where an entry for them is passed."""
    lab, table = tmp_path / "lab", tmp_path / "tables" / "sessions.parquet"
    write_small(lab)
    nwbzarr("catalog", "scan", lab, "-o", table, "--storage", "lab")
    refused = nwbzarr("info", table)
    assert (refused.status, refused.out) == (2, "")
    assert "outside the folder of the tables" in refused.err
    allowed = nwbzarr("info", table, "--storage-option", json.dumps({"prefix": str(lab)}).join(["lab=", ""]))
    assert (allowed.status, allowed.err) == (0, "")
    names = [Session(name, name, None, None, is_alone=False) for name in ("s3://a/b/../..", "s3://a/..\\c")]
    assert file_names(names) == {"s3://a/b/../..": "b", "s3://a/..\\c": "c"}
    local = [Session(name, name, None, None, is_alone=False) for name in ("a/ses.nwb", "b/ses.nwb", "c.nwb")]
    assert list(file_names(local).values()) == ["a-ses.nwb", "b-ses.nwb", "c.nwb"]


def test_catalog_scan_says_with_which_option_all_columns_are_read(
    nwbzarr: Command, s3_server: S3Server, tmp_path: Path
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "cli/columns", write_small(tmp_path / "lab").parent)
    options = ("--anon", "--endpoint-url", s3_server.endpoint_url)
    command = ("catalog", "scan", url, "-o", tmp_path / "table.parquet", *options)
    result = nwbzarr(*command)
    assert "1 session (0 unchanged, 1 scanned), 10 requests, " in result.out
    (option,) = re.findall(r"; (--requests \d+) reads all\n", result.out)
    result = nwbzarr(*command, *option.split())
    assert "Not read" not in result.out


@pytest.mark.parametrize("name", ["empty.csv", "EMPTY.CSV", "a.b.Parquet"])
def test_catalog_scan_writes_no_folder_that_is_named_like_a_file(
    name: str, nwbzarr: Command, tmp_path: Path
) -> None:
    (tmp_path / "lab").mkdir()
    result = nwbzarr("catalog", "scan", tmp_path / "lab", "-o", tmp_path / name)
    stem = tmp_path / name.rpartition(".")[0]
    assert (result.status, result.out) == (2, "")
    assert f"Pass {stem}.parquet, or the name of a folder, such as {stem}." in result.err
    assert not (tmp_path / name).exists()
    # A folder that exists may have any name, and a dot in a name may be part of it.
    for folder in (tmp_path / name, tmp_path / "tables.v1"):
        folder.mkdir(exist_ok=True)
        assert nwbzarr("catalog", "scan", tmp_path / "lab", "-o", folder).status == 0


def test_catalog_scan_prints_stale_sessions(
    nwbzarr: Command, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    shutil.copytree(copy / "acquisition" / "sync", copy / "acquisition" / "late")
    result = nwbzarr("catalog", "scan", copy, "-o", tmp_path / "table.parquet", "--check")
    assert (result.status, result.err) == (0, "")
    assert f"Stale: {locate(copy)}" in result.out


def test_catalog_scan_reads_anonymously_and_writes_with_credentials(
    nwbzarr: Command,
    corpus_dir: Callable[[str, str], Path],
    s3_server: S3Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = s3_server.upload(s3_server.public_bucket, "cli/a.nwb.zarr", corpus_dir("ophys", "0.14.0"))
    output = f"s3://{s3_server.private_bucket}/cli/table.parquet"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    result = nwbzarr("catalog", "scan", url, "-o", output, "--anon", "--endpoint-url", s3_server.endpoint_url)
    assert (result.status, result.err) == (0, "")
    assert all(
        "Authorization" not in seen.headers for seen in s3_server.requests if "a.nwb.zarr" in seen.path
    )
    assert len(Tables(locate(output, s3_server.signed_options)).opened().read("sessions")) == 1


def test_catalog_scan_of_a_url_with_secrets_is_refused(nwbzarr: Command, tmp_path: Path) -> None:
    result = nwbzarr("catalog", "scan", "https://me:canary@example.org/a", "-o", tmp_path / "table.parquet")
    assert result.status == 2
    assert "has a password" in result.err
    assert "canary" not in result.err + result.out


def test_the_bar_of_a_scan_shows_what_is_found_and_what_failed() -> None:
    output = io.StringIO()
    terminal = Console(file=output, force_terminal=True, width=100, color_system=None)
    with progress_bar(terminal, "finding", scan_fields) as show:
        show(ScanProgress("s3://lab", 3))
        show(ScanProgress("s3://lab", 1, 3, 1))
    text = output.getvalue()
    assert "1/3 sessions 1 failed" in text


_INTERRUPTED = """
import sys
from importlib.abc import MetaPathFinder
class CtrlC(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == stop:
            raise KeyboardInterrupt
stop = sys.argv.pop(1)
sys.meta_path.insert(0, CtrlC())
from importlib.metadata import entry_points
(command,) = entry_points(group="console_scripts", name="nwbzarr")
command.load()()
"""


@pytest.mark.parametrize("module", ["typer", "xarray"])
def test_ctrl_c_while_modules_are_imported_has_status_130_and_no_traceback(module: str) -> None:
    command = [sys.executable, "-c", _INTERRUPTED, module, "info", "nothing"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 130
    assert ended.stdout + ended.stderr in {"Aborted.\n", ""}
