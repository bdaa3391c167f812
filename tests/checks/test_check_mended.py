"""What a check says mends a session does: afterwards, it has nothing to say of that."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBHDF5IO

from intake_nwbzarr import check, convert
from tests.checks.checked_sessions import chunked, good_session
from tests.servers.s3_server import S3Server
from tests.session_files import copy_of

Corpus = Callable[[str, str], Path]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["zarr-2", "hdf5-file", "small-chunks"])
def test_a_session_that_is_converted_as_the_finding_says_has_no_more_findings(
    fault: str, corpus_dir: Corpus, tmp_path: Path
) -> None:
    if fault == "zarr-2":
        path = copy_of(corpus_dir("ophys", "0.8.0"), tmp_path)
    elif fault == "hdf5-file":
        path = tmp_path / "a.nwb"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with NWBHDF5IO(path, "w") as io:
                io.write(good_session())
    else:
        data = np.random.default_rng(0).normal(size=300_000)
        path = chunked(tmp_path, "a.nwb.zarr", data, (1000,))
    found = next(each for each in check(path).findings if each.code == fault)
    assert found.mend == f"nwbzarr convert {path} DESTINATION"
    converted = tmp_path / "converted.nwb.zarr"
    convert(path, converted)
    report = check(converted)
    assert report.findings == ()
    assert report.fresh


@pytest.mark.slow
def test_a_command_names_the_server_that_was_asked(
    s3_server: S3Server, corpus_dir: Corpus, tmp_path: Path
) -> None:
    url = s3_server.upload(s3_server.private_bucket, "mended/old.nwb.zarr", corpus_dir("ophys", "0.2.0"))
    credentials = tmp_path / "credentials"
    credentials.write_text(
        f"[my lab]\naws_access_key_id = {s3_server.key}\naws_secret_access_key = {s3_server.secret}\n"
    )
    environment = {**os.environ, "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    command = f"nwbzarr consolidate {url} --profile 'my lab' --endpoint-url {s3_server.endpoint_url}"

    def run(arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("nwbzarr")
        return subprocess.run(
            [program, *shlex.split(arguments)[1:]],
            env=environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    checked = command.replace("consolidate", "check")
    assert f"mend: {command}  [" in run(checked).stdout
    mended = run(command)
    assert mended.returncode == 0, mended.stderr
    assert command not in run(checked).stdout
