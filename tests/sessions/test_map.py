"""A function is mapped over sessions on threads: results, failures, retries and resumption."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import intake_nwbzarr.sessions.map.map as mapping
from intake_nwbzarr import set_limits
from intake_nwbzarr.errors import (
    LocationError,
    LocationNotFoundError,
    MapWarning,
    OptionError,
    ResultError,
    SessionFailedError,
    TableError,
    TransportError,
)
from intake_nwbzarr.sessions.map.map import map_sessions
from intake_nwbzarr.sessions.map.map_result import MapResult
from intake_nwbzarr.sessions.map.provenance import function_digest
from intake_nwbzarr.sessions.selected import Selected
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server
from tests.session_files import edit
from tests.sessions.mapped_sessions import counts, select, serially, write_session


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "BACKOFF", 0.05)


@pytest.fixture(params=["memory", "folder", "s3"])
def where(request: pytest.FixtureRequest, tmp_path: Path, s3_server: S3Server) -> dict[str, Any]:
    """Where results are kept."""
    match request.param:
        case "memory":
            return {}
        case "folder":
            return {"folder": tmp_path / "results"}
    url = f"s3://{s3_server.private_bucket}/{tmp_path.name}/results"
    return {"folder": url, "storage_options": s3_server.signed_options}


def test_results_equal_a_serial_loop(found: list[Selected], where: dict[str, Any]) -> None:
    done = map_sessions(found, counts, **where)
    wanted = pd.DataFrame(serially(found, counts)).T
    assert list(done.frame.index) == [each.key for each in found]
    np.testing.assert_array_equal(done.frame[["units", "last", "trials"]].to_numpy(), wanted.to_numpy())
    assert done.frame.subject_id.tolist() == [f"m{number}" for number in range(6)]
    assert set(done.frame.species) == {"Mus musculus"}
    assert len(done.failures) == 0
    if where:
        assert done.folder == str(where["folder"])
        assert done.place is not None
        for folder in (done.folder, f"{done.folder}/counts", f"{done.folder}/counts/results"):
            assert len(MapResult.load(folder, where.get("storage_options")).sessions) == 6
        assert len(MapResult.load(done.place).sessions) == 6
        again = MapResult.load(where["folder"], where.get("storage_options"))
        pd.testing.assert_frame_equal(again.frame, done.frame)
        assert again.provenance == done.provenance


def test_rows_and_arrays_have_their_session(found: list[Selected], tmp_path: Path) -> None:
    def aligned(units: xr.Dataset, trials: xr.Dataset) -> xr.DataArray:
        return units.nwb.align(trials, window=(0.0, 0.3), bin=0.1).spike_counts.mean("trial")

    done = map_sessions(found, aligned, folder=tmp_path)
    wanted = serially(found, aligned)
    assert done.frame.index.names == ["session", "unit", "lag"]
    for key, array in wanted.items():
        np.testing.assert_array_equal(done.frame.spike_counts.loc[key], array.values.ravel())
        xr.testing.assert_equal(done.result(key), array.load())
    together = done.to_xarray("unit")
    assert together.sizes["unit"] == sum(array.sizes["unit"] for array in wanted.values())
    with pytest.raises(ResultError, match="'unit'"):
        done.to_xarray()
    with pytest.raises(OptionError, match="session must be a location"):
        done.result(3)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no result for") as caught:
        done.result(found[0].key[:-1])
    assert found[0].key not in str(caught.value).split()


@pytest.mark.parametrize("give", ["dataset", "datatree", "nwb"])
def test_whole_sessions_are_given_in_other_forms(found: list[Selected], give: Any) -> None:
    taken: list[Any] = []

    def name(session: Any) -> str:
        taken.append(session)
        return str(session.session_id if give == "nwb" else session.attrs["session_id"])

    done = map_sessions(found, name, give=give)
    assert done.frame.value.tolist() == [f"ses-{number}" for number in range(6)]
    if give == "nwb":
        assert all(nwbfile.read_io.closed for nwbfile in taken)


def test_a_failure_is_a_row_and_ends_nothing_else(found: list[Selected], tmp_path: Path) -> None:
    def picky(units: xr.Dataset, trials: xr.Dataset) -> int | None:
        match units.attrs["session_id"]:
            case "ses-1":
                raise KeyError("no such column")
            case "ses-2":
                sys.exit("enough")
            case "ses-3":
                return None
            case "ses-4":
                return [1, 2]  # type: ignore[return-value]
        return 1

    done = map_sessions(found, picky, folder=tmp_path, name="picky")
    assert done.frame.value.tolist() == [1, 1]
    assert done.sessions == [found[number].key for number in (0, 3, 5)]
    failures = done.failures
    assert list(failures.columns[:6]) == ["session", "error", "message", "transient", "attempts", "seconds"]
    assert failures.error.tolist() == ["KeyError", "SystemExit", "ResultError"]
    assert failures.session.tolist() == [found[number].key for number in (1, 2, 4)]
    assert failures.attempts.tolist() == [1, 1, 1]
    assert not failures.transient.any()
    assert 'raise KeyError("no such column")' in failures.traceback[0]
    failed = "3 failed: KeyError 1, SystemExit 1, ResultError 1"
    assert f"picky: 3 of 6 sessions, {failed}; 2 rows in" in repr(done)
    with pytest.raises(OptionError, match=r"failed: KeyError: .*no such column"):
        done.result(found[1].key)
    again = map_sessions(found, picky, folder=tmp_path, name="picky")
    assert "3 of 6 sessions (3 kept)" in repr(again)
    one = map_sessions(found[1:2], picky)
    assert "0 of 1 session, 1 failed: KeyError 1; 0 rows" in repr(one)
    with pytest.raises(ResultError, match="No session has a result"):
        one.to_xarray()
    assert "no such column" in done._repr_html_()


class MuteError(Exception):
    """An error whose message cannot be shown, and that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __str__(self) -> str:
        raise RuntimeError("no message")


def raising(units: xr.Dataset, trials: xr.Dataset) -> int:
    """Raise whatever a function may raise."""
    match units.attrs["session_id"]:
        case "ses-0":
            raise KeyboardInterrupt
        case "ses-1":
            raise asyncio.CancelledError
        case "ses-2":
            raise MuteError
        case "ses-3":
            error = ValueError("its own cause")
            raise error from error
        case "ses-4":
            raise FileNotFoundError("caf\udce9\0")
    return 1


def check_raising(done: MapResult) -> None:
    assert done.failures.error.tolist() == [
        "KeyboardInterrupt", "CancelledError", "MuteError", "ValueError", "FileNotFoundError"
    ]  # fmt: skip
    assert done.failures.message.tolist()[2:] == [
        "(its message cannot be shown: str() of a MuteError raises an error)", "its own cause", "caf\\udce9\0"
    ]  # fmt: skip
    assert len(done.sessions) == 1


def test_whatever_a_function_raises_is_a_failure_of_its_session(
    found: list[Selected], tmp_path: Path
) -> None:
    check_raising(map_sessions(found, raising, folder=tmp_path))
    check_raising(MapResult.load(tmp_path))


def test_only_what_may_pass_is_tried_again(found: list[Selected], served: StaticServer) -> None:
    hasty = {"timeouts": {"attempts": 1}}
    sessions = [select(each.key, number, hasty) for number, each in enumerate(found)]
    served.fault("status", "s1.nwb.zarr/units/id/", times=2)
    served.fault("status", "s2.nwb.zarr/units", times=10**6)
    served.fault("status", "s3.nwb.zarr/units", times=10**6, status=403)
    done = map_sessions(sessions, counts)
    assert [(each.state, each.attempts) for each in done.ended] == [
        ("done", 1), ("done", 3), ("failed", 3), ("failed", 1), ("done", 1), ("done", 1)
    ]  # fmt: skip
    assert done.failures.transient.tolist() == [True, False]
    assert done.failures.error.tolist() == ["TransportError", "AccessError"]
    assert "1 of these may succeed if run again" in repr(done)


def test_a_stale_and_a_half_written_session(
    found: list[Selected], served: StaticServer, folder: Path
) -> None:
    stale, half = write_session(served.root, 7), write_session(served.root, 8)
    sessions = [*found, *(select(f"{served.url}/{each.name}", 7) for each in (stale, half))]
    edit(stale, "units", lambda document: document["attributes"].update(x=1))
    (half / "zarr.json").unlink()
    done = map_sessions(sessions, counts)
    assert done.failures.error.tolist() == ["StaleTableError", "LocationNotFoundError"]
    assert len(done.sessions) == 6


def test_on_error_raise_ends_early_and_resumes(found: list[Selected], tmp_path: Path) -> None:
    calls: list[str] = []
    broken = {"ses-2"}

    def picky(units: xr.Dataset, trials: xr.Dataset) -> int:
        calls.append(units.attrs["session_id"])
        if units.attrs["session_id"] in broken:
            raise ZeroDivisionError("nothing to divide")
        return 1

    run = partial(map_sessions, found, picky, folder=tmp_path, threads=1, on_error="raise")
    with pytest.raises(SessionFailedError, match="nothing to divide") as caught:
        run()
    assert caught.value.location == found[2].key
    assert len(calls) < 6
    partly = MapResult.load(tmp_path)
    assert partly.provenance.status == "interrupted"
    assert "interrupted" in repr(partly)
    broken.clear()
    with pytest.warns(MapWarning, match="a variable or function that it uses"):
        done = run()
    assert {each: calls.count(each) for each in ("ses-0", "ses-2", "ses-5")} == {
        "ses-0": 1,
        "ses-2": 2,
        "ses-5": 1,
    }
    assert len(done.frame) == 6
    assert done.provenance.status == "complete"


def test_results_are_kept_unless_what_they_depend_on_changes(
    found: list[Selected], served: StaticServer, tmp_path: Path
) -> None:
    def calls(done: MapResult) -> tuple[int, int]:
        return len(done.sessions) - done.provenance.counts["kept"], done.provenance.counts["kept"]

    run = partial(map_sessions, folder=tmp_path, name="one")
    assert calls(run(found[:4], counts)) == (4, 0)
    first = MapResult.load(tmp_path)
    done = run([*found, found[0]], counts)
    assert calls(done) == (2, 4)
    # What was noted of them is kept, too.
    assert done.ended[:4] == first.ended
    assert calls(run(found, counts, resume=False)) == (6, 0)
    assert calls(map_sessions(found, counts, folder=tmp_path, name="two")) == (6, 0)
    other_paths = [
        Selected(each.key, each.location, each.etag, {**each.paths, "trials": ("units",)}) for each in found
    ]
    another = partial(map_sessions, folder=tmp_path, name="three")
    assert calls(another(found[:1], lambda units, trials: 1)) == (1, 0)
    with pytest.warns(MapWarning):
        assert calls(another(other_paths[:1], lambda units, trials: 2)) == (1, 0)
    another_state = Selected(found[0].key, found[0].location, None, found[0].paths)
    assert calls(run([another_state], counts)) == (1, 0)
    assert calls(run(found, lambda session: len(session.sizes), give="dataset", resume=False)) == (6, 0)
    with pytest.raises(OptionError, match="several maps: one, three, two"):
        MapResult.load(tmp_path)


def test_a_session_has_one_result_whatever_its_state(
    found: list[Selected], served: StaticServer, tmp_path: Path
) -> None:
    changing = write_session(served.root, 7)

    def selected() -> list[Selected]:
        return [*found[:2], select(f"{served.url}/{changing.name}", 7)]

    run = partial(map_sessions, function=counts, folder=tmp_path)
    run(selected())
    before = MapResult.load(tmp_path)
    edit(changing, "units", lambda document: document["attributes"].update(x=1))
    done = run(selected())
    assert done.provenance.counts["kept"] == 2
    # Other engines read all files, and none of these twice.
    assert len(pd.read_parquet(tmp_path / "counts/results")) == 3
    with pytest.raises(TableError, match="replaced by another map"):
        before.frame  # noqa: B018
    # Without the summary of the map, the files say what they are.
    (tmp_path / "counts/sessions.parquet").write_bytes(b"no")
    (tmp_path / "counts/results/another.parquet").write_bytes(b"no")
    again = run(selected())
    assert again.provenance.counts["kept"] == 3
    assert "; 3 rows in" in repr(again)
    pd.testing.assert_frame_equal(again.frame, done.frame)
    for damage in (b"no", b'{"format": "nwbzarr-results", "counts": 3}', b"[]"):
        (tmp_path / "counts/provenance.json").write_bytes(damage)
        with pytest.raises(TableError, match="cannot be read"):
            MapResult.load(tmp_path)
        assert run(selected()).provenance.counts["kept"] == 3


def test_a_changed_function_under_an_old_name_warns(found: list[Selected], tmp_path: Path) -> None:
    factor = 1

    def scaled(units: xr.Dataset, trials: xr.Dataset) -> int:
        return factor * units.sizes["unit"]

    run = partial(map_sessions, found, scaled, folder=tmp_path)
    run()
    run()
    factor = 2
    with pytest.warns(MapWarning, match="resume=False"):
        done = run()
    assert done.frame.value.sum() == 12
    assert len(done.provenance.earlier_digests) == 1
    assert run(resume=False).frame.value.sum() == 24


@pytest.mark.slow
def test_the_digest_of_a_function_is_of_its_code_and_what_it_encloses() -> None:
    def adder(term: Any) -> Callable[[Any], Any]:
        return lambda value: value + term

    one: Any = lambda value: value in {"a", "b", "c"}  # noqa: E731
    array = np.arange(3)
    digests = {
        function_digest(adder(1)), function_digest(adder(2)), function_digest(adder(array)),
        function_digest(adder(adder(1))), function_digest(one), function_digest(partial(one, 3)),
        function_digest(len), function_digest("".join),
    }  # fmt: skip
    assert len(digests) == 8
    assert function_digest(adder(array.copy())) == function_digest(adder(array))
    # In another process, in which sets of texts have another order.
    code = "from tests.sessions.test_map import digest_of_a_constant as digest; print(digest())"
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert there.stdout.strip() == digest_of_a_constant()

    def recursive(value: int) -> int:
        return recursive(value - 1) if value else 0

    assert function_digest(recursive)


def test_the_digest_of_a_function_is_also_of_what_it_uses_of_its_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def digests() -> set[str]:
        return {function_digest(each) for each in (_scaled, cache(_scaled), _Scaled())}

    before = digests()
    assert len(before) == 3
    assert digests() == before
    monkeypatch.setitem(globals(), "_FACTOR", 3)
    changed = digests()
    assert not before & changed
    monkeypatch.setitem(globals(), "_factor", lambda: 3)
    assert not changed & digests()


_FACTOR = 2


def _factor() -> int:
    return _FACTOR


def _scaled(value: int) -> int:
    return value * _factor()


class _Scaled:
    def __call__(self, value: int) -> int:
        return _scaled(value)


def digest_of_a_constant() -> str:
    return function_digest(lambda value: value in {"x", "y", "z", "uvw"})


@pytest.mark.slow
def test_a_folder_whose_map_was_killed_resumes(
    found: list[Selected], served: StaticServer, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys
            from tests.sessions.mapped_sessions import counts, select
            from intake_nwbzarr.sessions.map.map import map_sessions

            def work(units, trials):
                if units.attrs["session_id"] == "ses-4":
                    os.kill(os.getpid(), 9)
                return counts(units, trials)

            found = [select(f"{sys.argv[1]}/s{n}.nwb.zarr", n) for n in range(6)]
            map_sessions(found, work, folder=sys.argv[2], name="killed", threads=1)
            """
        )
    )
    command = [sys.executable, script, served.url, tmp_path / "out"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    assert subprocess.run(command, check=False, env=environment).returncode == -signal.SIGKILL
    with pytest.raises(TableError, match="resumes"):
        MapResult.load(tmp_path / "out")
    with pytest.warns(MapWarning):
        done = map_sessions(found, counts, folder=tmp_path / "out", name="killed")
    assert done.provenance.counts["kept"] == 4
    assert "; 6 rows in" in repr(done)
    wanted = pd.DataFrame(serially(found, counts)).T
    np.testing.assert_array_equal(done.frame[["units", "last", "trials"]].to_numpy(), wanted.to_numpy())


@pytest.mark.slow
def test_ctrl_c_leaves_a_folder_that_resumes(found: list[Selected], tmp_path: Path) -> None:
    def slow(units: xr.Dataset, trials: xr.Dataset) -> int:
        if units.attrs["session_id"] == "ses-3":
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.5)
        return 1

    # A shell's background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        map_sessions(found, slow, folder=tmp_path, threads=1)
    partly = MapResult.load(tmp_path)
    assert (partly.provenance.status, len(partly.sessions)) == ("interrupted", 3)
    # Python does not wait for the functions that still run when it exits.
    assert all(each.daemon for each in threading.enumerate() if each.name.startswith("nwbzarr-map"))
    with pytest.raises(KeyboardInterrupt):
        map_sessions(found[3:], slow, folder=tmp_path, name="another", threads=1)
    with pytest.warns(MapWarning):
        done = map_sessions(found, counts, folder=tmp_path, name="another")
    assert len(done.sessions) == 6


@pytest.mark.parametrize("give", ["objects", "dataset"])
def test_what_is_asked_for_wrongly_is_refused_before_anything_is_opened(
    give: Any, found: list[Selected], served: StaticServer, tmp_path: Path
) -> None:
    before = served.count()

    def one(units: xr.Dataset) -> int:
        return 1

    if give == "objects":
        with pytest.raises(OptionError, match="names of the search's conditions"):
            map_sessions(found, one)
        bare = Selected(found[0].key, found[0].location)
        with pytest.raises(OptionError, match="give='dataset'"):
            map_sessions([bare], counts)
    else:
        with pytest.raises(OptionError, match="takes one argument"):
            map_sessions(found, counts, give="dataset")
    wrong: dict[str, Any] = {
        "function": 3, "client": 3, "name": "a/b", "give": "all", "timeout": 0, "retries": -1, "window": 0,
        "isolate": "thread", "memory_limit": "1 GB", "on_error": "ignore", "resume": None, "threads": True,
        "progress": "yes", "storage_options": {"anon": True},
    }  # fmt: skip
    for argument, value in wrong.items():
        with pytest.raises(OptionError):
            map_sessions(found, **({"function": counts} | {argument: value}))
    with pytest.raises(OptionError, match="name"):
        map_sessions(found, lambda units, trials: 1, folder=tmp_path)

    async def later(units: xr.Dataset, trials: xr.Dataset) -> int:
        return 1

    with pytest.raises(OptionError, match="asynchronous"):
        map_sessions(found, later)
    lock = threading.Lock()
    with pytest.raises(OptionError, match="cannot be sent to another process"):
        map_sessions(found, lambda units, trials: lock.locked(), isolate="process", give="objects")
    with pytest.raises(LocationError, match="cannot be written"):
        map_sessions(found, counts, folder=served.url)
    with pytest.raises(LocationError):
        map_sessions(found, counts, folder=3)  # type: ignore[arg-type]
    # One error, and no warning that nothing can be noted there either.
    (tmp_path / "file").touch()
    with pytest.raises(TransportError, match="Not a directory"):
        map_sessions(found, counts, folder=tmp_path / "file")
    with pytest.raises(LocationNotFoundError):
        MapResult.load(tmp_path / "nothing")
    assert served.count() == before


def test_no_sessions_are_no_error(tmp_path: Path) -> None:
    done = map_sessions([], counts, folder=tmp_path)
    assert len(done.frame) == len(done.failures) == 0
    assert repr(MapResult.load(tmp_path)) == repr(done)
    assert done.to_xarray().sizes == {}


def test_the_provenance_stands_beside_the_results(found: list[Selected], tmp_path: Path) -> None:
    map_sessions(found, counts, folder=tmp_path, tables="0123456789abcdef", name="told-1")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    assert MapResult.load(tmp_path).provenance.name == "told-1"
    about = json.loads((tmp_path / "told-1/provenance.json").read_text())
    assert about["tables"] == "0123456789abcdef"
    assert about["function"] == "tests.sessions.mapped_sessions.counts"
    assert about["function_digest"] == function_digest(counts)
    assert about["status"] == "complete"
    assert about["counts"]["done"] == 6
    assert about["counts"]["requests"] > 6
    assert about["began"] <= about["ended"]
    assert {"package", "python", "name", "give"} <= about.keys()
    frame = pd.read_parquet(tmp_path / "told-1/results")
    assert len(frame) == 6


def test_a_result_that_is_damaged_or_missing_is_one_clear_error(
    found: list[Selected], tmp_path: Path
) -> None:
    done = map_sessions(found, counts, folder=tmp_path)
    first, *_ = sorted((tmp_path / "counts/results").iterdir())
    first.write_bytes(b"PAR1")
    with pytest.raises(TableError, match=rf"/counts/results/{first.name} is damaged"):
        MapResult.load(tmp_path).frame  # noqa: B018
    first.unlink()
    with pytest.raises(TableError, match="missing") as caught:
        MapResult.load(tmp_path).frame  # noqa: B018
    assert caught.value.path == first.name
    assert len(map_sessions(found, counts, folder=tmp_path).frame) == len(done.sessions)
    (tmp_path / "counts/sessions.parquet").write_bytes(b"no")
    with pytest.raises(TableError):
        MapResult.load(tmp_path)


@pytest.mark.slow
def test_a_full_disk_fails_sessions_and_is_told(found: list[Selected], tmp_path: Path) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    out.mkdir()
    script.write_text(
        textwrap.dedent(
            """
            import resource, signal, sys
            from pathlib import Path
            import numpy as np, pandas as pd
            from tests.sessions.mapped_sessions import select
            from intake_nwbzarr.sessions.map.map import map_sessions

            def work(units, trials):
                many = 100_000 if units.attrs["session_id"] in {"ses-1", "ses-2"} else 1
                return pd.Series(np.random.default_rng(0).random(many))

            found = [select(f"{sys.argv[1]}/s{n}.nwb.zarr", n) for n in range(6)]
            if sys.argv[3] == "limit":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
            done = map_sessions(found, work, folder=sys.argv[2], threads=2)
            print(len(done.frame), done.failures.error.tolist(), done.failures.message[0])
            print(list(Path(sys.argv[2]).rglob("*.partial")))
            """
        )
    )
    # A small file system of its own, where that is permitted; else, a limit on the size of files.
    small = f'mount -t tmpfs -o size=300k tmpfs {out} && exec "$@"'
    mounted = ["unshare", "--map-root-user", "--mount", "sh", "-c", small, "sh"]
    permitted = shutil.which("unshare") and subprocess.run([*mounted, "true"], check=False).returncode == 0
    kind = "mount" if permitted else "limit"
    command = [sys.executable, script, found[0].key.rpartition("/")[0], out, kind]
    ended = subprocess.run(
        [*(mounted if permitted else []), *command],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
    )
    told, partial_files = ended.stdout.splitlines()
    assert told.startswith("4 ['TransportError', 'TransportError']")
    assert {"mount": "No space left on device", "limit": "File too large"}[kind] in told
    assert partial_files == "[]"


def test_nothing_that_was_read_is_remembered(found: list[Selected]) -> None:
    from intake_nwbzarr.hierarchy import documents
    from intake_nwbzarr.transport import memory_cache

    map_sessions(found, counts)
    assert documents.memory.total == memory_cache.memory.total == 0


def test_progress_is_shown_where_it_is_asked_for(
    found: list[Selected], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    map_sessions(found, counts, name="bar", count=6)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    map_sessions(found, counts, name="bar", count=6, progress=True)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "bar" in shown
    assert "6/6" in shown


def test_secrets_are_masked_in_failures(s3_server: S3Server, folder: Path, tmp_path: Path) -> None:
    place = s3_server.upload(s3_server.private_bucket, "mapped/s0.nwb.zarr", folder / "s0.nwb.zarr")
    session = select(place, 0, s3_server.signed_options)
    secret = s3_server.secret

    def leaky(units: xr.Dataset, trials: xr.Dataset) -> int:
        raise ValueError(f"a leaked value: {secret}")

    done = map_sessions([session], leaky, folder=tmp_path)
    assert done.failures.message.tolist() == ["a leaked value: ****"]
    assert secret not in done.failures.traceback[0]
    files = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    assert secret.encode() not in files


@pytest.fixture
def few_requests() -> Iterator[None]:
    before = set_limits()
    set_limits(requests=8)
    yield
    set_limits(requests=before.requests)


def test_threads_share_the_limit_on_requests(
    found: list[Selected], served: StaticServer, few_requests: None
) -> None:
    served.reset()
    served.latency = 0.02
    map_sessions(found, counts, threads=6)
    assert served.most_at_once <= 8


def test_sessions_are_taken_one_after_the_other(found: list[Selected]) -> None:
    taken: list[int] = []

    def lazily() -> Iterator[Selected]:
        for number in range(60):
            each = found[number % 6]
            taken.append(number)
            yield Selected(f"{each.key}?{number}", each.location, each.etag, each.paths)

    def first(units: xr.Dataset, trials: xr.Dataset) -> int:
        return len(taken)

    done = map_sessions(lazily(), first, threads=2)
    assert done.frame.value.iloc[0] <= 10
    assert len(done.sessions) == 60
