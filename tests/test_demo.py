"""The demo, run as a newcomer runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread

from intake_nwbzarr.demo import check_packages
from intake_nwbzarr.demo.server import PRIVATE_BUCKET, PUBLIC_BUCKET, s3_server
from intake_nwbzarr.demo.sessions import imaging_session, spiking_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2
from intake_nwbzarr.errors import DemoUnavailableError, MetadataError


@pytest.mark.slow
def test_the_demo_does_the_main_job_and_saves_a_picture(tmp_path: Path) -> None:
    # Settings of the user's own must neither help nor hinder.
    variables = {"COLUMNS": "120", "AWS_PROFILE": "nobody", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    result = subprocess.run(
        [Path(sys.executable).with_name("nwbzarr"), "demo", "--output", tmp_path / "out"],
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stdout + result.stderr
    assert result.stderr == ""
    for words in (
        "['imaging', 'spiking']",
        "<xarray.Dataset>",
        "RoiResponseSeries",
        "bouts of licking",
        "spikes around 60 trials",
        "Mus musculus",
        f"s3://{PRIVATE_BUCKET}/spiking.nwb.zarr",
        "requests",
        "nwbzarr-demo.png",
    ):
        assert words in result.stdout, result.stdout
    picture = imread(tmp_path / "out" / "nwbzarr-demo.png")
    assert picture.shape[0] > 400
    assert np.unique(picture.reshape(-1, picture.shape[2]), axis=0).shape[0] > 50


def test_a_missing_server_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "moto", None)
    with pytest.raises(
        DemoUnavailableError, match=r'needs the package moto\. .*pip install "intake-nwbzarr\[demo\]"'
    ) as raised:
        check_packages()
    assert raised.value.found == "moto"


def test_a_server_that_does_not_start_is_an_error_that_says_how_to_see_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server's process finds a package of that name without what it imports from it.
    (tmp_path / "moto.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with s3_server() as running, pytest.raises(DemoUnavailableError, match="did not start") as raised:
        running()
    assert raised.value.found == 1
    assert raised.value.next_step == "Run `python -m intake_nwbzarr.demo.server` to see its error."


def test_the_server_guards_the_private_bucket_and_stops(tmp_path: Path) -> None:
    (tmp_path / "a.nwb.zarr").mkdir()
    (tmp_path / "a.nwb.zarr" / "zarr.json").write_bytes(b"{}")
    with s3_server() as running:
        server = running()
        for bucket in (PUBLIC_BUCKET, PRIVATE_BUCKET):
            assert server.upload(tmp_path, bucket, "x") == 1
        with urlopen(f"{server.endpoint_url}/{PUBLIC_BUCKET}/x/a.nwb.zarr/zarr.json") as answer:
            assert answer.read() == b"{}"
        with pytest.raises(HTTPError, match="403") as refusal:
            urlopen(f"{server.endpoint_url}/{PRIVATE_BUCKET}/x/a.nwb.zarr/zarr.json")
        refusal.value.close()
        assert server.secret not in repr(server)
        assert os.environ["AWS_ACCESS_KEY_ID"] == server.key
    assert os.environ.get("AWS_ACCESS_KEY_ID") != server.key
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(server.endpoint_url.rpartition(":")[2])), timeout=5)


def test_a_session_rewritten_as_zarr_2_is_the_same_dataset(tmp_path: Path) -> None:
    current, legacy = tmp_path / "current.nwb.zarr", tmp_path / "legacy.nwb.zarr"
    write_zarr3(imaging_session(frames=60, rois=3, pixels=8), current)
    write_zarr2(current, legacy)
    assert not (legacy / "zarr.json").exists()
    datasets = [xr.open_dataset(folder, engine="nwbzarr").load() for folder in (current, legacy)]
    xr.testing.assert_equal(*datasets)
    for name in ("session_start_time", "subject_genotype", "general_virus"):
        assert datasets[0].attrs.get(name) == datasets[1].attrs.get(name)


def test_the_demo_s_sessions_are_the_same_every_time() -> None:
    first, second = (spiking_session().units["spike_times"].data[:] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_what_the_demo_writes_has_no_copies_of_the_schemas(tmp_path: Path) -> None:
    write_zarr3(imaging_session(frames=60, rois=3, pixels=8), tmp_path / "a.nwb.zarr")
    assert not (tmp_path / "a.nwb.zarr" / "specifications").exists()


def test_what_cannot_be_rewritten_as_zarr_2_is_named(
    corpus_dir: Callable[[str, str], Path], tmp_path: Path
) -> None:
    with pytest.raises(MetadataError, match="Only numbers and strings") as caught:
        write_zarr2(corpus_dir("icephys", "0.14.0"), tmp_path / "icephys.nwb.zarr")
    assert caught.value.path
