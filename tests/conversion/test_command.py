"""`nwbzarr convert`, as users run it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from rich.console import Console

from intake_nwbzarr.cli.commands import convert_fields
from intake_nwbzarr.cli.main import main
from intake_nwbzarr.cli.output import progress_bar
from intake_nwbzarr.conversion.report import ConvertProgress
from tests.conversion.sessions import SMALL, Stored, nodes
from tests.hdf5.files import write as write_hdf5
from tests.session_files import empty_session
from tests.session_files import write as write_session

type Run = Callable[..., tuple[int, str, str]]

SIZES = [part for name, size in SMALL.items() for part in (f"--{name.replace('_', '-')}", size)]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command, and return its exit status and what it prints."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nwbzarr", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


def test_a_dry_run_shows_how_each_array_would_be_stored_and_writes_nothing(
    run: Run, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "b.nwb.zarr"
    status, out, _ = run(source, target, "--dry-run", *SIZES)
    assert status == 0
    for line in (
        "acquisition/data: 14.4 kB, chunks of 60 x 4, shards of 120 x 12; bytes, zstd; copied",
        "acquisition/legacy: 1.9 kB, chunks of 42 x 12, shards of 84 x 12; bytes, zstd; encoded anew",
    ):
        assert f"\n  {line}\n" in out
    assert not target.exists()


def test_json_is_a_list_with_what_was_done(
    run: Run, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    source, target = corpus_dir("ophys", "0.8.0"), tmp_path / "b.nwb.zarr"
    status, out, _ = run(source, target, "--json")
    (found,) = json.loads(out)
    assert (status, found["document"], found["written"]) == (0, "nwbzarr-convert 1.0", True)
    assert found["verified"]["different"] == []
    assert found["location"] == found["source"] == source.as_uri()
    assert {"path", "chunk_shape", "codecs", "copied"} <= found["arrays"][0].keys()
    # Again, there is nothing left to do; with other options, it is another conversion.
    status, out, err = run(source, target)
    assert (status, err) == (0, "")
    assert out.endswith("  complete since an earlier run\n")
    status, out, err = run(source, target, "--compressor", "gzip")
    assert (status, out) == (2, "")
    assert err.startswith(f"Error: The destination {target.as_uri()} already has a Zarr store.")


def test_options_of_s3_are_for_both_and_some_for_the_destination_only(
    run: Run, bucket: Stored, tmp_path: Path
) -> None:
    server = bucket.server
    keys = [f"{name}={value}" for name, value in server.signed_options.items() if name != "endpoint_url"]
    given = [part for key in keys for part in ("--storage-option", key)]
    endpoint = ("--endpoint-url", server.endpoint_url)
    status, _, err = run(bucket.source, bucket.target, *endpoint, "--no-verify", *given, *SIZES)
    assert (status, "may be a secret" in err) == (0, True)
    server.upload(server.public_bucket, f"{bucket.folder}/open.nwb.zarr", bucket.source)
    again = bucket.target.replace("/b.", "/c.")
    own = [part for key in keys for part in ("--destination-option", key)]
    public = f"s3://{server.public_bucket}/{bucket.folder}/open.nwb.zarr"
    # The source is read anonymously, which overrides nothing of the destination.
    region = ("--storage-option", "region=us-east-1")
    status, _, err = run(public, again, *endpoint, "--no-verify", *own, *region)
    assert status == 0, err
    status, _, err = run(bucket.source, tmp_path / "d.nwb.zarr", "--profile", "lab")
    assert (status, "profile" in err) == (2, True)


def test_parts_that_cannot_be_read_are_an_error_unless_they_are_left_out(run: Run, tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file.create_dataset("kept", data=[1, 2, 3])
        data = file["kept"]
        file.create_dataset("regions", data=[data.regionref[:2]], dtype=h5py.regionref_dtype)

    source, target = write_hdf5(tmp_path / "a.nwb", fill), tmp_path / "b.nwb.zarr"
    status, _, err = run(source, target)
    assert status == 2
    assert "has parts that cannot be read: 'regions': " in err
    assert "--skip-unreadable" in err
    assert not target.exists()
    status, out, _ = run(source, target, "--skip-unreadable")
    # pynwb needs more than that.
    assert (status, "left out: regions: " in out) == (1, True)
    assert set(nodes(target)) == {"", "kept"}


def test_progress_is_shown_in_bytes_on_a_terminal() -> None:
    terminal = Console(force_terminal=True, width=120, record=True)
    with progress_bar(terminal, "opening", convert_fields) as show:
        show(ConvertProgress("converting", 10**6, 2 * 10**6, "acquisition/data"))
        show(ConvertProgress("verifying", 3, 9, "units"))
    shown = convert_fields(ConvertProgress("converting", 10**6, 2 * 10**6, "acquisition/data"))
    assert (shown["completed"], shown["total"]) == (10**6, 2 * 10**6)
    assert "1.0 MB" in shown["unit"]


def test_several_sessions_become_one_folder_of_them(run: Run, tmp_path: Path) -> None:
    sources = [write_session(tmp_path, empty_session(), f"{name}.nwb.zarr") for name in ("a", "b")]
    status, out, err = run(*sources, tmp_path / "new", "--json")
    assert (status, err) == (0, "")
    targets = [tmp_path / "new" / source.name for source in sources]
    assert sorted((tmp_path / "new").iterdir()) == targets
    assert [each["destination"] for each in json.loads(out)] == [f"file://{target}" for target in targets]


def test_a_destination_that_pynwb_cannot_read_is_status_1(run: Run, source: Path, tmp_path: Path) -> None:
    # The session has only arrays, and none of what NWB requires.
    for _ in range(2):
        status, out, _ = run(source, tmp_path / "b.nwb.zarr")
        assert (status, "Not compared with pynwb, which cannot read it: " in out) == (1, True)
    status, out, _ = run(source, tmp_path / "c.nwb.zarr", "--no-verify")
    assert (status, "Not compared" in out) == (0, False)


def test_chunks_that_neither_has_are_no_alarm(
    run: Run, corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    session = Path(shutil.copytree(corpus_dir("ecephys", "0.14.0"), tmp_path / "a.nwb.zarr"))
    shutil.rmtree(session / "units/spike_times/c")
    status, out, _ = run(session, tmp_path / "b.nwb.zarr")
    assert (status, "fields equal" in out, "incomplete upload" in out) == (0, True, False)
