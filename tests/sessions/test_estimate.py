"""What a map will take is estimated from the tables, without a request."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from intake_nwbzarr import Find
from intake_nwbzarr.checks.costs import shipped_prices
from intake_nwbzarr.errors import OptionError
from intake_nwbzarr.sessions.catalog import SessionCatalog
from intake_nwbzarr.sessions.map.estimate import Assumptions, Estimate, Load
from tests.servers.s3_server import S3Server
from tests.sessions.conftest import UNITS, write_tables

LOAD = Load(
    sessions=1000, objects=2000, nbytes=3 * 10**12, chunks=10**6, unknown=0, on_s3=500, requester_pays=100
)


def test_requests_bytes_and_money_follow_from_the_tables() -> None:
    estimate = Estimate(LOAD).assuming(requests_to_open=2, requests_per_object=3, compression=2.0)
    assert estimate.requests == 1000 * 2 + 2000 * 3 + 10**6
    assert estimate.bytes == 1_500_000_000_000 + 1000 * 100_000
    estimate = estimate.priced(get_per_1000=1.0, egress_per_gb=0.0, put_per_1000=5.0, list_per_1000=5.0)
    assert estimate.money == pytest.approx(estimate.requests / 1000 / 2)
    assert estimate.your_money == pytest.approx(estimate.requests / 1000 / 10)
    writing = Estimate(LOAD, results_on_s3=True).priced(put_per_1000=5.0, get_per_1000=0, egress_per_gb=0)
    assert writing.writes >= 1000
    assert writing.your_money == pytest.approx(5.0, rel=0.05)


def test_assumptions_are_parameters_and_shown() -> None:
    estimate = Estimate(LOAD)
    less = estimate.assuming(read=0.01)
    metadata = 1000 * estimate.assumptions.bytes_to_open
    assert less.bytes - metadata == (estimate.bytes - metadata) // 100
    assert estimate.assuming(bytes_to_open=0).bytes == estimate.bytes - metadata
    assert less.seconds < estimate.seconds
    assert estimate.assuming(leaves_region=False).money < estimate.money
    slow = estimate.assuming(function=60.0, workers=2)
    assert slow.seconds >= 1000 * 60 / 2
    for name in Assumptions.__dataclass_fields__:
        assert f"{name}=" in repr(less)
    assert "read=0.01" in repr(less)
    assert shipped_prices().date in repr(estimate)
    assert estimate._repr_html_().startswith("<pre>&lt;Estimate for 1,000 sessions")
    for wrong in ({"read": 2}, {"red": 1}, {"workers": 0}, {"threads": 1.5}, {"leaves_region": 1}):
        with pytest.raises(OptionError):
            estimate.assuming(**wrong)
    prices: tuple[dict[str, Any], ...] = (
        {"put": 1}, {"get_per_1000": "1"}, {"egress_per_gb": -1}, {"date": 2027}
    )  # fmt: skip
    for given in prices:
        with pytest.raises(OptionError):
            estimate.priced(**given)


def test_the_prices_have_a_date_and_a_source() -> None:
    file = Path(__file__).parents[2] / "intake_nwbzarr/checks/prices.json"
    prices: dict[str, Any] = json.loads(file.read_text())
    assert dt.date.fromisoformat(prices["date"])
    assert prices["source"].startswith("https://")
    assert prices["currency"] == "USD"


def test_a_dry_run_of_a_search_requests_nothing(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = f"s3://{s3_server.private_bucket}"
    sessions: list[dict[str, Any]] = [
        {"location": f"{bucket}/1", "storage": "lab"},
        {"location": f"{bucket}/2", "storage": "lab"},
        {"location": "https://127.0.0.1:1/3"},
    ]
    objects: list[dict[str, Any]] = [
        {"location": each["location"], "path": path, "name": path, "type": "Units", "types": UNITS}
        | ({} if path == "b" and number == 2 else {"nbytes": 10**6, "chunks": 7})
        for number, each in enumerate(sessions)
        for path in ("units", "b")
    ]
    place = write_tables(tmp_path / "lab.parquet", sessions, objects)
    s3_server.reset()
    options = {**s3_server.signed_options, "requester_pays": True}
    lab = SessionCatalog(str(place), {"lab": options})
    found = lab.search(units=Find("Units", path="units"))
    estimate = found.map(lambda units: 1, dry_run=True)
    assert isinstance(estimate, Estimate)
    assert estimate.load == Load(3, 3, 3 * 10**6, 21, 0, 2, 2)
    whole = found.map(len, give="dataset", dry_run=True, folder=f"{bucket}/results")
    assert isinstance(whole, Estimate)
    assert whole.load == Load(3, 6, 5 * 10**6, 35, 1, 2, 2)
    assert "1 object without sizes" in repr(whole)
    assert whole.writes > 0
    assert s3_server.count() == 0
    with pytest.raises(OptionError):
        found.map(lambda units: 1, dry_run="yes")  # type: ignore[arg-type]
    # What a run refuses, its estimate refuses as well.
    for wrong in ({"function": len}, {"give": "all"}, {"timeout": 0}, {"name": "a/b"}):
        with pytest.raises(OptionError):
            found.map(**({"function": lambda units: 1, "dry_run": True} | wrong))
    with pytest.raises(OptionError, match="no Find"):
        lab.map(len, dry_run=True)
    # Of several objects, a function is given the first by path; and a local folder may be called anything.
    first = lab.search(units=Find("Units", multiple="first"))
    taken = first.map(lambda units: 1, dry_run=True, folder="s3-results", name="one")
    assert isinstance(taken, Estimate)
    assert taken.load == Load(3, 3, 2 * 10**6, 14, 1, 2, 2)
    assert taken.writes == 0
