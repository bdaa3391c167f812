"""Counting requests: nested, in every thread, and as a table."""

import pickle
from pathlib import Path

from intake_nwbzarr.location.location import locate
from intake_nwbzarr.transport.loop import run
from intake_nwbzarr.transport.open import fetch_many, open_transport
from intake_nwbzarr.transport.request_log import Counts, RequestLog, record, track_requests


def test_logs_may_be_nested_and_count_while_open_only(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "zarr.json").write_bytes(b"{}")
    transport = open_transport(locate(tmp_path))
    with track_requests() as outer:
        run(transport.get("a"))
        with track_requests() as inner:
            assert len(fetch_many(transport, ["a", "missing"])) == 2
        run(transport.list())
    run(transport.get("a"))
    assert (inner.requests, inner.bytes, inner.bytes_used) == (2, 5, 5)
    assert (outer.requests, outer.bytes, outer.retries) == (4, 10, 0)
    assert outer.locations[f"file://{tmp_path}"].requests == 4
    assert {name: counts.requests for name, counts in outer.methods.items()} == {"get": 3, "list": 1}


def test_logs_of_several_processes_add_up() -> None:
    with track_requests() as log:
        record("s3://b/a", "get", requests=2, received=10, used=5)
    total = pickle.loads(pickle.dumps(log))
    total.add(log)
    assert total.total == Counts(requests=4, received=20, used=10)


def test_a_log_prints_as_a_table() -> None:
    log = RequestLog()
    assert str(log).splitlines()[1].split() == ["total", "0", "0", "0", "B", "0", "B"]
    log.counts["s3://bucket/a", "get"] = Counts(1234, 5, 2_500_000, 2_400_000)
    assert str(log).splitlines()[1:] == ["s3://bucket/a     1,234        5    2.5 MB  2.4 MB"]
    log.counts["https://host/b", "get"] = Counts(1, 0, 10, 10)
    assert [line.split()[0] for line in str(log).splitlines()] == [
        "location",
        "https://host/b",
        "s3://bucket/a",
        "total",
    ]
