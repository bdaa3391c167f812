"""A bucket of six sessions is prepared for streaming by following what `nwbzarr check` says."""

from __future__ import annotations

import json
import shlex
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hdmf_zarr.utils import ZarrDataIO
from pynwb import TimeSeries

from intake_nwbzarr.demo.sessions import imaging_session, spiking_session, write_zarr3
from tests.conftest import CORPUS
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of, empty_session
from tests.test_cli import Command, nwbzarr

__all__ = ["nwbzarr"]

HDF5 = Path(__file__).parent / "data" / "ecephys.nwb"


def six_sessions(folder: Path) -> dict[str, Path]:
    """A good session; one without consolidated metadata, one with stale ones, one of tiny chunks; others."""
    good = folder / "good.nwb.zarr"
    write_zarr3(spiking_session(), good, schemas=True)
    imaging = folder / "imaging.nwb.zarr"
    write_zarr3(imaging_session(), imaging, schemas=True)

    unconsolidated = copy_of(imaging, folder, "unconsolidated.nwb.zarr")
    root = json.loads((unconsolidated / "zarr.json").read_text())
    del root["consolidated_metadata"]
    (unconsolidated / "zarr.json").write_text(json.dumps(root))

    stale = copy_of(good, folder, "stale.nwb.zarr")
    trials = zarr.open_group(stale / "intervals" / "trials", mode="r+", use_consolidated=False)
    trials.attrs["description"] = "corrected after the upload"

    tiny = folder / "tiny-chunks.nwb.zarr"
    session = empty_session()
    data = np.random.default_rng(0).normal(size=22_000)
    session.add_acquisition(
        TimeSeries(
            name="speed",
            data=ZarrDataIO(data, chunks=(11,)),
            unit="cm/s",
            rate=100.0,
            description="of the wheel",
        )
    )
    write_zarr3(session, tiny, schemas=True)

    with zipfile.ZipFile(CORPUS / "ecephys_hdmf-zarr-0.13.0.nwb.zarr.zip") as archive:
        archive.extractall(folder / "zarr2.nwb.zarr")
    return {
        "good": good,
        "unconsolidated": unconsolidated,
        "stale": stale,
        "tiny-chunks": tiny,
        "zarr2": folder / "zarr2.nwb.zarr",
        "hdf5": Path(shutil.copy(HDF5, folder / "hdf5.nwb")),
    }


# The picture without which a page would not show what a session is about.
PICTURES = {
    "good": "Spikes of units",
    "unconsolidated": "ROIs of PlaneSegmentation",
    "stale": "Spikes of units",
    "tiny-chunks": "speed",
    "zarr2": "Spikes of units",
    "hdf5": "Spikes of units",
}
FOUND = {
    "good": set(),
    "unconsolidated": {"not-consolidated"},
    "stale": {"stale-metadata"},
    "tiny-chunks": {"small-chunks"},
    "zarr2": {"zarr-2", "pickled-objects"},
    "hdf5": {"hdf5-file"},
}


@pytest.mark.slow
def test_following_what_check_says_makes_it_content(
    nwbzarr: Command, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server.endpoint_url)
    bucket = f"s3://{s3_server.public_bucket}/six"
    urls = {
        name: s3_server.upload(s3_server.public_bucket, f"six/{path.name}", path)
        for name, path in six_sessions(tmp_path).items()
    }
    first = nwbzarr("check", *urls.values(), "--json")
    assert (first.status, first.err) == (1, "")
    reports = dict(zip(urls, json.loads(first.out), strict=True))
    found = {name: {each["code"] for each in report["findings"]} for name, report in reports.items()}
    assert {name: codes & set.union(*FOUND.values()) for name, codes in found.items()} == FOUND
    assert reports["good"]["ok"]
    for name, report in reports.items():
        # Of several, the first: convert mends everything about storage.
        commands = [each["mend"] for each in report["findings"] if each["mend"].startswith("nwbzarr")]
        commands = [each for each in commands if "convert" in each] or commands
        if not commands:
            continue
        words = shlex.split(commands[0])[1:]
        if "DESTINATION" in words:
            urls[name] = f"{bucket}/prepared/{name}.nwb.zarr"
        done = nwbzarr(*[urls[name] if word == "DESTINATION" else word for word in words])
        assert (done.status, done.err) == (0, ""), name
    again = nwbzarr("check", *urls.values(), "--json")
    left = {name: report["findings"] for name, report in zip(urls, json.loads(again.out), strict=True)}
    assert again.status == 0, left
    assert not {each["code"] for findings in left.values() for each in findings} & set.union(*FOUND.values())

    pages = tmp_path / "pages"
    made = nwbzarr("page", *urls.values(), "-o", pages, "--json")
    assert (made.status, made.err) == (0, "")
    assert (pages / "index.html").exists()
    for name, document in zip(urls, json.loads(made.out), strict=True):
        assert PICTURES[name] in str(document["pictures"]), (name, document["pictures"])
