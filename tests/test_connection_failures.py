"""When the wire fails: the same result after repetitions, or one error; never fill values for data."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from intake_nwbzarr import open_nwb, track_requests
from intake_nwbzarr.errors import AccessError, NWBZarrError, TransportError
from intake_nwbzarr.hierarchy.documents import memory
from tests.servers.s3_server import S3Server

pytestmark = pytest.mark.slow

Corpus = Callable[[str, str], Path]

# The stored chunk that holds the first samples of the first channels, and what is in it.
CHUNK = "ElectricalSeriesAP/data/0.0"
QUICK_TO_GIVE_UP = {"timeouts": {"stall": 1.0, "total": 10, "attempts": 3, "backoff": 0.01}}


@pytest.fixture
def session(corpus_dir: Corpus, s3_server: S3Server) -> Iterator[tuple[str, dict[str, Any]]]:
    url = s3_server.upload(s3_server.private_bucket, "faults/a.nwb.zarr", corpus_dir("ecephys", "0.8.0"))
    s3_server.reset()
    yield url, s3_server.signed_options | QUICK_TO_GIVE_UP
    s3_server.reset()


@pytest.fixture
def samples(corpus_dir: Corpus) -> np.ndarray[Any, Any]:
    with xr.open_dataset(
        corpus_dir("ecephys", "0.8.0"), engine="nwbzarr", group="acquisition/ElectricalSeriesAP"
    ) as dataset:
        return dataset.data[:10].values


def _open(url: str, options: dict[str, Any]) -> xr.Dataset:
    return xr.open_dataset(
        url, engine="nwbzarr", storage_options=options, group="acquisition/ElectricalSeriesAP"
    )


PASSING = [
    ("status", {"status": 503}),
    ("status", {"status": 429}),
    ("reset", {}),
    ("truncate", {}),
    ("stall", {}),
]


@pytest.mark.parametrize(("kind", "details"), PASSING)
def test_what_passes_is_tried_again(
    kind: Any, details: dict[str, Any], session: tuple[str, dict[str, Any]], s3_server: S3Server, samples: Any
) -> None:
    url, options = session
    s3_server.fault(kind, ".zmetadata", **details)
    s3_server.fault(kind, CHUNK, **details)
    with track_requests() as log:
        np.testing.assert_array_equal(_open(url, options).data[:10].values, samples)
    assert log.retries == 2
    memory.clear()  # so that there is an answer with bytes that can be cut short
    s3_server.fault(kind, ".zmetadata", **details)
    with track_requests() as log:
        assert open_nwb(url, options).identifier == "corpus-ecephys"
    assert log.retries == 1


@pytest.mark.parametrize(("kind", "details"), PASSING)
@pytest.mark.parametrize("opened", [_open, open_nwb])
def test_what_does_not_pass_is_one_error_that_counts_the_attempts(
    opened: Callable[..., Any],
    kind: Any,
    details: dict[str, Any],
    session: tuple[str, dict[str, Any]],
    s3_server: S3Server,
) -> None:
    url, options = session
    s3_server.fault(kind, ".zmetadata", times=math.inf, **details)
    with pytest.raises(TransportError, match=r"a\.nwb\.zarr.*after 3 attempts"):
        opened(url, options)


@pytest.mark.parametrize("fault", ["reset", "truncate", 403, 500])
def test_a_chunk_that_cannot_be_had_is_an_error_and_never_fill_values(
    fault: Any, session: tuple[str, dict[str, Any]], s3_server: S3Server
) -> None:
    url, options = session
    dataset = _open(url, options)
    if isinstance(fault, int):
        s3_server.fault("status", CHUNK, times=math.inf, status=fault, code="AccessDenied")
    else:
        s3_server.fault(fault, CHUNK, times=math.inf)
    expected = AccessError if fault == 403 else TransportError
    with pytest.raises(expected, match=r"ElectricalSeriesAP/data/0\.0"):
        dataset.data[:10].load()
    # Through dask as well, and the other chunks are as good as ever.
    with pytest.raises(expected):
        dataset.chunk().data.mean().compute()
    assert np.isfinite(dataset.data[:10, 4:].values).all()


def test_a_chunk_that_is_not_there_is_the_fill_value(
    session: tuple[str, dict[str, Any]], s3_server: S3Server
) -> None:
    url, options = session
    dataset = _open(url, options)
    s3_server.fault("status", CHUNK, times=math.inf, status=404, code="NoSuchKey")
    values = dataset.data[:10].values
    assert (values[:, :4] == 0).all()
    assert (values[:, 4:] != 0).any()


def test_a_listing_that_fails_once_is_tried_again_and_one_that_always_fails_is_an_error(
    corpus_dir: Corpus, s3_server: S3Server
) -> None:
    folder = corpus_dir("icephys", "0.3.0")
    url = s3_server.upload(s3_server.private_bucket, "faults/unlisted.nwb.zarr", folder)
    s3_server.reset()
    options = s3_server.signed_options | QUICK_TO_GIVE_UP
    s3_server.fault("status", "list-type", status=503)
    with pytest.warns(UserWarning, match="no consolidated metadata"):
        assert open_nwb(url, options).identifier == "corpus-icephys"
    s3_server.fault("status", "list-type", times=math.inf, status=503)
    with pytest.raises(NWBZarrError, match="after 3 attempts"):
        open_nwb(url, options)
