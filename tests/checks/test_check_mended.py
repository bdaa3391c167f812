"""What a check says mends a session does: afterwards, it has nothing to say of that."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pynwb import NWBHDF5IO

from intake_nwbzarr import check, convert
from tests.checks.checked_sessions import chunked, good_session
from tests.session_files import copy_of

Corpus = Callable[[str, str], Path]


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
