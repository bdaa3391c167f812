"""What a session contains, as it is listed, is what pynwb reads from it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hdmf.container import Data
from pynwb import NWBHDF5IO, H5DataIO, TimeSeries
from pynwb.base import TimeSeries as Series

from intake_nwbzarr import open_nwb, session_info
from intake_nwbzarr.errors import NodeNotFoundError
from tests.session_files import empty_session

Corpus = Callable[[str, str], Path]


@pytest.mark.parametrize("release", ["0.2.0", "0.8.0", "0.14.0"])
@pytest.mark.parametrize("kind", ["ecephys", "ophys", "icephys"])
@pytest.mark.filterwarnings("ignore::intake_nwbzarr.errors.UnconsolidatedWarning")
def test_the_objects_and_their_arrays_are_those_of_pynwb(kind: str, release: str, corpus_dir: Corpus) -> None:
    session = corpus_dir(kind, release)
    info, nwbfile = session_info(session), open_nwb(session)
    types = {each.type for each in info.objects}
    for each in nwbfile.objects.values():
        # pynwb has classes of its own for tables that older releases stored as a DynamicTable.
        assert isinstance(each, Data) or not types.isdisjoint(base.__name__ for base in type(each).__mro__)
    series = {each.path.rpartition("/")[2]: each for each in info.objects if each.timestamps is not None}
    compared = 0
    for each in nwbfile.objects.values():
        if not isinstance(each, Series) or each.name not in series or not hasattr(each.data, "shape"):
            continue
        listed = series[each.name]
        stored = {array.path.rpartition("/")[2]: array for array in listed.arrays}
        if "data" not in stored:
            continue
        assert stored["data"].shape == each.data.shape
        assert math.prod(listed.shape) == math.prod(each.data.shape)
        assert listed.units == each.unit
        assert listed.rate is None or each.rate is None or listed.rate == pytest.approx(each.rate)
        if each.rate:
            assert listed.start == each.starting_time
        assert stored["data"].nbytes == each.data.size * np.dtype(each.data.dtype).itemsize
        compared += 1
    assert compared
    assert info.session["identifier"] == nwbfile.identifier
    assert nwbfile.subject is not None
    assert info.subject["id"] == nwbfile.subject.subject_id
    assert info.chunks is not None
    assert json.loads(json.dumps(info.document))["document"] == "nwbzarr-info 1.0"


def test_many_alike_are_one_line_and_each_an_object_of_the_document(tmp_path: Path) -> None:
    nwbfile = empty_session()
    for number in range(12):
        data = H5DataIO(np.arange(40_000 + number), compression="gzip", shuffle=True, chunks=(1000,))
        nwbfile.add_acquisition(TimeSeries(name=f"aux{number:02}", data=data, unit="mV", rate=50.0))
    nwbfile.add_acquisition(TimeSeries(name="other", data=[1.0, 2.0], unit="V", timestamps=[0.1, 0.4]))
    path = tmp_path / "many.nwb"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with NWBHDF5IO(path, "w") as io:
            io.write(nwbfile)
    info = session_info(path)
    assert len(info.objects) == 14
    line = next(each for each in str(info).splitlines() if "aux00" in each)
    assert " ".join(line.split()) == (
        "aux00 … aux11 (12) TimeSeries (time: 40,000…40,011) int64 mV 50 Hz "
        "chunks (1,000) 8.0 kB shuffle deflate"
    )
    assert "aux05" not in str(info)
    one = session_info(path, group="acquisition/aux05")
    assert [each.path for each in one.objects] == ["acquisition/aux05"]
    (data,) = (array for array in one.objects[0].arrays if array.path.endswith("/data"))
    assert (data.shape, data.chunk_shape, data.chunk_bytes) == ((40_005,), (1000,), 8000)
    assert (data.compression, data.expected, data.stored) == (("shuffle", "deflate"), 41, 41)
    assert "acquisition/aux05/data" in str(one)
    with pytest.raises(NodeNotFoundError):
        session_info(path, group="acquisition/aux99")


def test_extensions_are_told_and_chunks_are_counted_only_if_wanted(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-m", "tests.extension", str(tmp_path)], check=True)
    info = session_info(tmp_path / "colours.nwb.zarr", chunks=False)
    assert info.extensions == {"ndx-colour": "0.1.0"}
    assert "\nextensions\n  ndx-colour 0.1.0\n" in str(info)
    assert info.chunks is None
    assert "Chunks:" not in str(info)
    lines = str(session_info(tmp_path / "colours.nwb.zarr")).splitlines()
    last = next(number for number, line in enumerate(lines) if line.startswith("Chunks: "))
    assert "stored" in lines[last]
    # An array with absent chunks has a line of its own.
    assert all(line.startswith("  ") and " stored" in line for line in lines[last + 1 :])
