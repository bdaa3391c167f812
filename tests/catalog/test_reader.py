"""The Intake 2 data type and reader."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dask
import intake
import pytest
import xarray as xr
from intake.readers import datatypes, readers
from intake.readers.entry import Catalog

from intake_nwbzarr.catalog.entries import MASK
from intake_nwbzarr.catalog.reader import NWBZarr, NWBZarrReader
from intake_nwbzarr.errors import CredentialsError, LocationError
from tests.servers.s3_server import S3Server

CANARIES = {"key": "CANARYKEY", "secret": "CANARYSECRET"}


@pytest.fixture
def session(corpus_dir: Callable[[str, str], Path]) -> Path:
    return corpus_dir("ophys", "0.8.0")


@pytest.fixture
def reader(session: Path) -> NWBZarrReader:
    return NWBZarrReader(NWBZarr(str(session)), group="processing/behavior/BehavioralTimeSeries/lick")


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/sub-1/a.nwb.zarr",
        "https://host/a.nwb.zarr/",
        "/data/A.NWB.ZARR",
        "s3://bucket/a.nwb.zarr.zip",
        "s3://bucket/a.nwb",
    ],
)
def test_the_type_is_recommended_for_its_urls(url: str) -> None:
    assert datatypes.recommend(url=url, head=False)[0] is NWBZarr


def test_the_type_is_recommended_for_a_local_folder(session: Path) -> None:
    assert NWBZarr in datatypes.recommend(url=str(session))


@pytest.mark.parametrize("url", ["s3://bucket/a.zarr", "s3://bucket/a.h5", "s3://bucket/nwb.zarr.txt"])
def test_the_type_is_not_recommended_for_others(url: str) -> None:
    assert NWBZarr not in datatypes.recommend(url=url, head=False)


def test_the_reader_is_the_first_recommended_for_the_type(session: Path) -> None:
    assert readers.recommend(NWBZarr)["importable"][0] is NWBZarrReader
    assert isinstance(NWBZarr(str(session)).to_reader(), NWBZarrReader)
    assert isinstance(NWBZarr(str(session)).to_reader("xarray"), NWBZarrReader)


def test_reading_gives_dask_arrays(reader: NWBZarrReader, session: Path) -> None:
    expected = xr.open_dataset(
        session, engine="nwbzarr", group="processing/behavior/BehavioralTimeSeries/lick"
    )
    for dataset in (reader.read(), reader.to_dask()):
        assert dask.is_dask_collection(dataset["data"].data)
        xr.testing.assert_identical(dataset.compute(), expected.compute())


def test_the_reader_gives_a_tree(reader: NWBZarrReader, session: Path) -> None:
    data = reader.to_datatree()["data"]
    assert dask.is_dask_collection(data.data)
    assert "acquisition" in NWBZarrReader(str(session)).to_datatree().children


def test_the_reader_takes_a_url_too(session: Path) -> None:
    assert "TwoPhotonSeries" in NWBZarrReader(str(session)).read()


def test_arguments_of_read_take_the_place_of_the_reader_s(reader: NWBZarrReader) -> None:
    assert "TwoPhotonSeries" in reader.read(group=None, chunks={"TwoPhotonSeries_time": 10})
    assert reader.discover(group=None)["shape"]["TwoPhotonSeries"] == (60, 16, 16)


def test_discover_and_to_nwb_do_as_the_source_s(reader: NWBZarrReader) -> None:
    assert reader.discover()["shape"]["data"] == (60,)
    with reader.to_nwb() as nwbfile:
        assert nwbfile.identifier == "corpus-ophys"


def test_a_catalog_that_is_written_lists_and_reads(reader: NWBZarrReader, tmp_path: Path) -> None:
    catalog = Catalog()
    catalog.give_name(catalog.add_entry(reader), "lick")
    path = str(tmp_path / "catalog.yaml")
    catalog.to_yaml_file(path)
    again = intake.open_catalog(path)
    assert list(again) == ["lick"]
    xr.testing.assert_identical(again.lick.read().compute(), reader.read().compute())
    assert again.lick.token == intake.open_catalog(path).lick.token


def test_pipelines_continue_from_the_dataset(reader: NWBZarrReader) -> None:
    assert reader.mean().read()["data"].ndim == 0


def test_a_pickled_reader_is_the_same_reader(reader: NWBZarrReader) -> None:
    again = pickle.loads(pickle.dumps(reader))
    assert again == reader
    xr.testing.assert_identical(again.read().compute(), reader.read().compute())


def test_secrets_are_nowhere_to_be_seen(tmp_path: Path) -> None:
    data = NWBZarr("s3://CANARY:CANARY@bucket/a.nwb.zarr", {**CANARIES, "endpoint_url": "http://127.0.0.1:1"})
    reader = data.to_reader()
    catalog = Catalog()
    catalog["it"] = reader
    catalog.to_yaml_file(str(tmp_path / "catalog.yaml"))
    for text in (
        repr(data),
        repr(reader),
        repr(data.to_dict()),
        repr(reader.to_dict()),
        repr(reader.to_entry()),
        repr(catalog.data),
        (tmp_path / "catalog.yaml").read_text(),
        pickle.dumps(reader, protocol=0).decode("latin1"),
    ):
        assert "CANARY" not in text
    assert MASK in repr(data)
    assert reader.token == NWBZarr("s3://x:y@bucket/a.nwb.zarr", {**data.storage_options}).to_reader().token
    with pytest.raises(CredentialsError, match="replaced a secret"):
        catalog["it"].read()


def test_a_variable_that_is_not_set_is_an_error_and_not_another_identity(tmp_path: Path) -> None:
    catalog = Catalog()
    catalog["it"] = NWBZarr(
        "s3://bucket/a", {"key": "{env(NOT_SET)}", "secret": "{env(NOT_SET)}"}
    ).to_reader()
    with pytest.raises(CredentialsError, match="'key' of the entry for s3://bucket/a is empty"):
        catalog["it"].read()
    catalog["bucket"] = NWBZarr("s3://{env(NOT_SET)}/a").to_reader()
    with pytest.raises(LocationError, match="s3://None/a begins with the word None"):
        catalog["bucket"].read()


def test_variables_that_are_set_open_the_bucket(
    session: Path, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = s3_server.upload(s3_server.private_bucket, "reader/a.nwb.zarr", session)
    monkeypatch.setenv("MY_KEY", s3_server.key)
    monkeypatch.setenv("MY_SECRET", s3_server.secret)
    options = {"key": "{env(MY_KEY)}", "secret": "{env(MY_SECRET)}", "endpoint_url": s3_server.endpoint_url}
    catalog = Catalog()
    catalog["it"] = NWBZarr(url, options).to_reader()
    assert "TwoPhotonSeries" in catalog["it"].read()


def test_a_call_of_xarray_is_read_by_intake_s_own_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "plain.zarr")
    xr.Dataset({"a": ("x", [0.0, 1.0])}).to_zarr(path)
    # Intake takes the first that fits, in the order of a set; its reader of many files fits as well.
    known = [
        each for each in readers.subclasses(readers.BaseReader) if each is not readers.XArrayPatternReader
    ]
    assert NWBZarrReader in known
    known.sort(key=lambda each: each is not NWBZarrReader)
    monkeypatch.setattr(readers, "subclasses", lambda cls: known)
    reader = intake.reader_from_call(f"xr.open_dataset({path!r}, engine='zarr')")
    assert reader.read().a.values.tolist() == [0.0, 1.0]


def test_readers_and_types_of_other_files_are_those_without_this_package(tmp_path: Path) -> None:
    # Of a process that knows it, what it adds is taken away; another one does not know it.
    code = """
import json, sys
import intake
from intake.readers import datatypes, readers

ours = lambda each: each.__module__.startswith("intake_nwbzarr")
urls = ["s3://b/a.zarr", "https://h/a.nc", "a.nwb.txt", "a.zip", "a.h5", "a.parquet", "a.zarr/"]
types = sorted((each for each in datatypes.subclasses(datatypes.BaseData) if not ours(each)), key=str)
found = {"urls": [sorted(each.__name__ for each in datatypes.recommend(url=url, head=False)) for url in urls]}
found["readers"] = {
    each.__name__: {kind: sorted(map(str, named)) for kind, named in readers.recommend(each).items()}
    for each in types
}
functions = {each: (each.func, sorted(each.other_funcs)) for each in readers.subclasses(readers.BaseReader)}
found["functions"] = sorted(map(str, (named for each, named in functions.items() if not ours(each))))
if len(sys.argv) > 1:
    others = {name for each, (func, names) in functions.items() if not ours(each) for name in (func, *names)}
    own = [func for each, (func, _) in functions.items() if ours(each)]
    assert len(own) == 2, own
    assert not others.intersection(own), own
print(json.dumps(found, sort_keys=True))
"""
    (tmp_path / "conf.yaml").write_text("import_on_startup: false\n")

    def run(*arguments: str, **environment: str) -> str:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | environment
        ).stdout

    assert run("ours") == run(INTAKE_CONF_FILE=str(tmp_path / "conf.yaml"))
