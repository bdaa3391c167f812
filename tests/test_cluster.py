"""Two workers in processes of their own: Datasets, sources and raw objects travel to them."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import intake
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster

from intake_nwbzarr.catalog.reader import NWBZarr
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.errors import CredentialsError
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

pytestmark = pytest.mark.slow

SERIES = "ElectricalSeriesAP"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def url(http_server: StaticServer, corpus_dir: Callable[[str, str], Path]) -> str:
    (http_server.root / "a.nwb.zarr").symlink_to(corpus_dir("ecephys", "0.8.0"))
    return f"{http_server.url}/a.nwb.zarr"


def test_a_dataset_opened_here_is_reduced_on_the_workers(
    client: Client, url: str, http_server: StaticServer
) -> None:
    series = xr.open_dataset(url, engine="nwbzarr", chunks={})[SERIES].chunk({f"{SERIES}_time": 1000})
    opening = http_server.count()
    mean = client.compute(series.mean()).result()
    read = [seen.path for seen in http_server.requests[opening:]]
    assert float(mean) == pytest.approx(float(series.compute(scheduler="synchronous").mean()))
    # What workers need to know of the array came with the graph: they request its chunks and no metadata.
    assert read
    assert all(f"/{SERIES}/data/" in path or f"/{SERIES}/channel_conversion/" in path for path in read)


def test_a_source_is_sent_to_a_worker_and_read_there(client: Client, url: str) -> None:
    def read(source: NWBZarrSource) -> tuple[str, float]:
        dataset = source.read()
        return source.name, float(dataset[SERIES].max().compute(scheduler="synchronous"))

    source = intake.open_nwbzarr(url)
    assert client.submit(read, source).result() == read(source)


def test_a_reader_is_sent_to_a_worker_and_read_there(client: Client, url: str) -> None:
    reader = NWBZarr(url).to_reader()

    def read() -> tuple[int, ...]:
        shape: tuple[int, ...] = reader.read()[SERIES].shape
        return shape

    assert client.submit(read).result() == (3000, 8)


def test_the_raw_object_is_opened_on_a_worker(client: Client, url: str) -> None:
    dataset = xr.open_dataset(url, engine="nwbzarr", chunks={})

    def identify(selected: xr.Dataset) -> str:
        return str(selected.nwb.nwbfile.identifier)

    assert client.submit(identify, dataset[[SERIES]]).result() == "corpus-ecephys"


def test_sending_lazy_objects_to_workers_reads_nothing(
    client: Client, url: str, http_server: StaticServer
) -> None:
    whole = xr.open_dataset(url, engine="nwbzarr")
    units = xr.open_dataset(url, engine="nwbzarr", group="units")
    trials = xr.open_dataset(url, engine="nwbzarr", group="intervals/trials")
    tree = xr.open_datatree(url, engine="nwbzarr")
    objects = [whole, whole[SERIES], units.nwb.bin(0.5), units.nwb.align(trials, (-0.1, 0.1), bin=0.05), tree]
    sizes = [len(pickle.dumps(each)) for each in objects]
    before = http_server.count()

    def identify(sent: xr.Dataset | xr.DataArray | xr.DataTree) -> str:
        return str(sent.nwb.location) if isinstance(sent, xr.Dataset) else type(sent).__name__

    assert client.submit(identify, whole).result() == url
    kinds = client.gather(client.map(identify, objects))
    assert [kinds[0], kinds[1], kinds[3], kinds[4]] == [url, "DataArray", url, "DataTree"]
    assert http_server.count() == before
    assert all(len(pickle.dumps(each)) < size + 500 for each, size in zip(objects, sizes, strict=True))
    # What is sent once is known again, so that nothing is computed twice.
    again = xr.open_dataset(url, engine="nwbzarr")
    assert client.submit(identify, whole).key == client.submit(identify, again).key


def test_a_session_in_a_private_bucket_is_read_on_workers_that_are_sent_the_keys(
    client: Client, s3_server: S3Server, corpus_dir: Callable[[str, str], Path]
) -> None:
    place = s3_server.upload(s3_server.private_bucket, "cluster/a.nwb.zarr", corpus_dir("ecephys", "0.14.0"))
    options = {**s3_server.signed_options, "ship_credentials": True}
    series = xr.open_dataset(place, engine="nwbzarr", storage_options=options, chunks={})[SERIES]
    there = client.compute(series).result()
    np.testing.assert_array_equal(there.values, series.compute(scheduler="synchronous").values)


def test_keys_that_were_not_to_be_sent_stay_here(client: Client, s3_server: S3Server) -> None:
    options = {"key": "ANOTHER", "secret": "CANARY", "endpoint_url": s3_server.endpoint_url}
    source = intake.open_nwbzarr(f"s3://{s3_server.private_bucket}/a.nwb.zarr", storage_options=options)
    with pytest.raises(CredentialsError, match="ship_credentials") as refusal:
        client.submit(lambda source: source.read(), source).result()
    assert "CANARY" not in str(refusal.value)
    assert s3_server.count() == 0


# dask-jobqueue 0.9 leaves its jobs' pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_of_a_batch_system_work_on_sessions(url: str, tmp_path: Path) -> None:
    from dask_jobqueue.local import LocalCluster as JobCluster

    from intake_nwbzarr.location.location import locate
    from intake_nwbzarr.sessions.map.map import map_sessions
    from intake_nwbzarr.sessions.selected import Selected

    session = Selected(url, locate(url), paths={"units": ("units",)})
    options = {"scheduler_options": {"dashboard_address": ":0"}, "log_directory": str(tmp_path / "logs")}
    with (
        JobCluster(cores=2, processes=1, memory="2 GB", **options) as cluster,
        Client(cluster, set_as_default=False) as own,
    ):
        cluster.scale(jobs=1)
        done = map_sessions([session], lambda units: units.sizes["unit"], client=own)
    assert done.frame.value.tolist() == [6]
