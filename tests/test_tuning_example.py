"""The example of many sessions: on a cluster that loses a worker, with broken, stale and private sessions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import TimeSeries

from intake_nwbzarr import consolidate, scan
from intake_nwbzarr.demo.running import write_running_sessions
from intake_nwbzarr.sessions.map.map_result import MapResult
from tests.servers.s3_server import S3Server
from tests.test_examples import is_drawn

SCRIPT = Path(__file__).parents[1] / "examples" / "tuning.py"
FEW, MANY = 12, 200


@pytest.mark.slow
def test_the_example_answers_its_question_over_a_few_local_sessions(tmp_path: Path) -> None:
    write_running_sessions(tmp_path / "kept" / "sessions", FEW)
    ran = _run(tmp_path, str(tmp_path / "kept" / "sessions"))
    assert ran.returncode == 0, ran.stderr
    assert is_drawn(tmp_path / "tuning.png")
    _check(MapResult.load(tmp_path / "kept" / "tuning").frame, tmp_path / "kept" / "sessions")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_200_sessions_of_which_some_are_broken_and_a_worker_that_is_killed(
    tmp_path: Path, s3_server: S3Server
) -> None:
    written = tmp_path / "written"
    write_running_sessions(written, MANY)
    served = shutil.copytree(written, tmp_path / "served")
    eligible = [number for number in range(MANY) if number % 5 != 4 and number % 7 != 6 and number % 9 != 8]
    unreadable, damaged, halved, stale = eligible[3], eligible[30], eligible[60], eligible[90]
    # Three that are broken: metadata cut short, a damaged chunk of the spikes, half a chunk of the speed.
    metadata = _session(served, unreadable) / "zarr.json"
    metadata.write_bytes(metadata.read_bytes()[:500])
    next((_session(served, damaged) / "units" / "spike_times" / "c").iterdir()).write_bytes(b"damaged")
    (chunk,) = (each for each in _session(served, halved).rglob("*speed/data/c/*") if each.is_file())
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    # One whose consolidated metadata are from before its units.
    metadata = _session(served, stale) / "zarr.json"
    document = json.loads(metadata.read_bytes())
    listed = document["consolidated_metadata"]["metadata"]
    for name in [name for name in listed if name.partition("/")[0] == "units"]:
        del listed[name]
    metadata.write_text(json.dumps(document))
    public, private = tmp_path / "public", tmp_path / "private"
    for number in range(MANY):
        target = public if number % 3 else private
        path = _session(served, number)
        shutil.move(path, target / path.parent.name / path.name)
    s3_server.upload(s3_server.public_bucket, "running", public)
    s3_server.upload(s3_server.private_bucket, "running", private)
    prefixes = [f"s3://{bucket}/running" for bucket in (s3_server.public_bucket, s3_server.private_bucket)]
    environment = {
        "AWS_ENDPOINT_URL": s3_server.endpoint_url,
        "AWS_ACCESS_KEY_ID": s3_server.key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    options = s3_server.signed_options
    report = scan(*prefixes, output=tmp_path / "checked", storage_options=options, check=True)
    assert [_number(failure.location) for failure in report.failures] == [unreadable]
    assert [_number(location) for location in report.stale] == [stale]

    process = _start(tmp_path, prefixes, environment)
    _kill_a_worker(process.pid, tmp_path / "kept" / "tuning", after=20)
    _finish(process, s3_server.secret)
    done = MapResult.load(tmp_path / "kept" / "tuning")
    assert {_number(location) for location in done.failures["session"]} == {damaged, halved}
    _check(done.frame, written, left_out={unreadable, damaged, halved, stale})
    assert is_drawn(tmp_path / "tuning.png")

    # Repaired, and run again: what is done stays.
    location = f"s3://{s3_server.public_bucket if stale % 3 else s3_server.private_bucket}/running"
    consolidate(f"{location}/{_session(Path(), stale)}", options)
    s3_server.requests.clear()
    _finish(_start(tmp_path, prefixes, environment), s3_server.secret)
    again = MapResult.load(tmp_path / "kept" / "tuning")
    _check(again.frame, written, left_out={unreadable, damaged, halved})
    read = {_number(seen.path) for seen in s3_server.requests if "/units/" in seen.path}
    assert read == {damaged, halved, stale}


def _number(location: str) -> int:
    (number,) = re.findall(r"day-(\d+)", location)
    return int(number)


def _start(folder: Path, prefixes: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        _command(folder, *prefixes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | environment | {"MPLBACKEND": "Agg"},
    )


def _finish(process: subprocess.Popen[str], secret: str) -> None:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert secret not in output + errors


def _session(folder: Path, number: int) -> Path:
    return folder / f"sub-R{number % 20}" / f"day-{number}.nwb.zarr"


def _command(folder: Path, *prefixes: str) -> list[str]:
    return [sys.executable, str(SCRIPT), *prefixes, "--folder", str(folder / "kept")]


def _run(folder: Path, *prefixes: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"MPLBACKEND": "Agg"}
    return subprocess.run(
        _command(folder, *prefixes),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=250,
        check=False,
    )


def _kill_a_worker(pid: int, results: Path, after: int) -> None:
    """Kill a worker process of a program's cluster once so many results are stored."""
    until = time.monotonic() + 300
    while time.monotonic() < until:
        if len(list(results.rglob("*.parquet"))) >= after:
            break
        time.sleep(0.05)
    workers = [
        each
        for each in psutil.Process(pid).children(recursive=True)
        if "spawn_main" in " ".join(each.cmdline())
    ]
    assert workers
    workers[0].kill()


def _check(frame: pd.DataFrame, folder: Path, left_out: Collection[int] = ()) -> None:
    """Compare the result with a loop over pynwb: sessions, units, bins, rates, and whose they are."""
    expected = {
        path.name: rates
        for path in sorted(folder.rglob("*.nwb.zarr"))
        if _number(path.name) not in left_out and (rates := _by_hand(path)) is not None
    }
    names = frame.index.get_level_values("session").map(lambda location: location.rpartition("/")[2])
    by_session = dict(iter(frame.groupby(names)))
    assert set(by_session) == set(expected)
    assert len(expected) > 5
    for name, (rates, subject) in expected.items():
        found = by_session[name]["spike_counts"].unstack("speed_bins")
        np.testing.assert_allclose(found.to_numpy(), rates, rtol=1e-9, atol=1e-9)
        assert set(by_session[name]["subject_id"]) == {subject}
        assert set(by_session[name]["species"]) == {"Mus musculus"}


def _by_hand(path: Path) -> tuple[np.ndarray, str] | None:
    """Return the firing rates by speed of a session's units, None for one that the question is not about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBZarrIO(str(path), mode="r", load_namespaces=False) as io:
            nwbfile = io.read()
            species = nwbfile.subject.species.lower()
            speeds = [
                each
                for each in nwbfile.objects.values()
                if isinstance(each, TimeSeries) and "speed" in each.name and each.unit in {"cm/s", "m/s"}
            ]
            if "rattus" in species or nwbfile.units is None or not speeds:
                return None
            (speed,) = speeds
            values = speed.data[:] * {"cm/s": 1.0, "m/s": 100.0}[speed.unit]
            spikes = [np.asarray(nwbfile.units["spike_times"][row]) for row in range(len(nwbfile.units))]
            subject = str(nwbfile.subject.subject_id)
    times = np.arange(len(values)) / speed.rate
    stop = times[-1] + 1 / speed.rate
    edges = np.arange(int(np.floor(stop / 0.1 + 1e-6)) + 1) * 0.1
    place = np.searchsorted(edges, times + 1e-9, side="right") - 1
    running = pd.Series(values).groupby(place).mean().reindex(range(len(edges) - 1))
    bins = pd.cut(running, np.arange(0, 31, 5))
    rows = []
    for each in spikes:
        counts = pd.Series(np.histogram(each, edges)[0] / 0.1)
        # The last bin of a histogram has its right edge, too.
        counts.iloc[-1] -= np.sum(each == edges[-1]) / 0.1
        rows.append(counts.groupby(bins, observed=False).mean().to_numpy())
    return np.array(rows), subject
