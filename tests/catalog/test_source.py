"""The Intake 1 source."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import intake
import numpy as np
import pytest
import xarray as xr
import yaml

from intake_nwbzarr.catalog.entries import MASK
from intake_nwbzarr.catalog.source import NWBZarrSource
from intake_nwbzarr.errors import CredentialsError, LocationError, LocationNotFoundError
from intake_nwbzarr.transport.request_log import track_requests
from tests.servers.s3_server import S3Server

SERIES = "ElectricalSeriesAP"
CANARIES = {"key": "CANARYKEY", "secret": "CANARYSECRET", "token": "CANARYTOKEN"}

# Intake 2.0.9 warns about shell commands whenever a parameter has a text for a default.
string_parameters = pytest.mark.filterwarnings("ignore:Shell command not executed:UserWarning")


@pytest.fixture
def session(corpus_dir: Callable[[str, str], Path]) -> Path:
    return corpus_dir("ecephys", "0.14.0")


@pytest.fixture
def write_catalog(tmp_path: Path) -> Callable[..., Any]:
    def write(name: str = "catalog.yaml", **sources: Any) -> Any:
        (tmp_path / name).write_text(yaml.safe_dump({"sources": sources}))
        return intake.open_catalog(str(tmp_path / name))

    return write


def entry(urlpath: object, **rest: Any) -> dict[str, Any]:
    parameters = rest.pop("parameters", {})
    return {"driver": "nwbzarr", "args": {"urlpath": str(urlpath), **rest}, "parameters": parameters}


@pytest.mark.parametrize("method", ["read", "to_dask"])
def test_both_ways_to_read_give_dask_arrays(session: Path, method: str) -> None:
    dataset = getattr(intake.open_nwbzarr(session), method)()
    assert dask.is_dask_collection(dataset["ElectricalSeriesAP"].data)
    expected = xr.open_dataset(session, engine="nwbzarr")
    xr.testing.assert_identical(dataset.compute(), expected.compute())


def test_patterns_and_lists_are_passed_on(session: Path, write_catalog: Callable[..., Any]) -> None:
    some = write_catalog(session=entry(session, group=["units", "acquisition/s*"])).session
    assert {"sync", "units_spike_times"} <= set(some.read().data_vars)


def test_a_tree_has_a_node_of_dask_arrays_for_each_object(session: Path) -> None:
    tree = intake.open_nwbzarr(session).to_datatree()
    data = tree["acquisition/ElectricalSeriesAP/data"]
    assert dask.is_dask_collection(data.data)
    assert data.chunks is not None
    expected = xr.open_datatree(session, engine="nwbzarr")
    xr.testing.assert_identical(tree.load(), expected.load())
    part = intake.open_nwbzarr(session, group="acquisition", chunks={"time": 500}).to_datatree()
    assert part["ElectricalSeriesAP/data"].chunks[0][0] == 500


def test_nodes_of_equal_names_are_told_apart_in_graphs(corpus_dir: Callable[[str, str], Path]) -> None:
    tree = intake.open_nwbzarr(corpus_dir("ophys", "0.8.0")).to_datatree()
    places = [f"processing/ophys/{kind}/RoiResponseSeries/data" for kind in ("Fluorescence", "Neuropil")]
    one, other = dask.compute(*(tree[place] for place in places))
    assert not np.array_equal(one, other)


def test_a_group_and_the_backend_s_keywords_are_passed_on(session: Path) -> None:
    source = intake.open_nwbzarr(
        session, group="acquisition/ElectricalSeriesAP", chunks={"time": 500}, mask_and_scale=False
    )
    dataset = source.read()
    assert dataset["data"].dtype == np.int16
    assert dataset["data"].chunks[0][0] == 500


def test_to_nwb_gives_the_raw_object(session: Path) -> None:
    with intake.open_nwbzarr(session).to_nwb() as nwbfile:
        assert nwbfile.identifier == "corpus-ecephys"


def test_discover_tells_shapes_types_and_metadata_without_reading_data(session: Path) -> None:
    source = intake.open_nwbzarr(session, metadata={"dandiset": "000719"})
    with track_requests() as log:
        found = source.discover()
        opening = log.requests
        xr.open_dataset(session, engine="nwbzarr")
    assert log.requests - opening == opening
    assert found["shape"]["ElectricalSeriesAP"] == (3000, 8)
    assert found["dtype"]["ElectricalSeriesAP"] == "float64"
    assert found["variables"]["ElectricalSeriesAP"]["nbytes"] == 3000 * 8 * 8
    assert found["dims"]["trials"] == 10
    assert found["attrs"]["subject_id"] == "R6"
    assert found["metadata"] == {"dandiset": "000719"}
    assert (source.dtype, source.shape) == (found["dtype"], found["shape"])


def test_the_whole_is_the_only_partition(session: Path) -> None:
    source = intake.open_nwbzarr(session, group="units")
    assert source.partition_access is False
    assert source.discover()["npartitions"] == 1
    xr.testing.assert_identical(source.read_partition(0).compute(), source.read().compute())
    source.close()
    assert source.read().sizes["unit"] == 6


def test_a_session_that_is_not_there_is_named_when_it_is_read(tmp_path: Path) -> None:
    source = intake.open_nwbzarr(tmp_path / "nothing.nwb.zarr")
    with pytest.raises(LocationNotFoundError, match=r"nothing\.nwb\.zarr"):
        source.read()


class TestTemplates:
    """What catalogs may leave to whoever opens them."""

    @string_parameters
    def test_user_parameters(self, session: Path, write_catalog: Callable[..., Any]) -> None:
        release = {"type": "str", "description": "which", "default": "units"}
        catalog = write_catalog(it=entry(session, group="{{ what }}", parameters={"what": release}))
        assert "spike_times" in catalog.it.read()
        assert "start_time" in catalog.it(what="intervals/trials").read()

    def test_environment_variables(
        self, session: Path, write_catalog: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SESSIONS", str(session.parent))
        catalog = write_catalog(it=entry(f"{{{{ env(SESSIONS) }}}}/{session.name}"))
        assert "ElectricalSeriesAP" in catalog.it.read()

    def test_the_catalog_s_own_folder(
        self, session: Path, write_catalog: Callable[..., Any], tmp_path: Path
    ) -> None:
        (tmp_path / session.name).symlink_to(session)
        catalog = write_catalog(it=entry(f"{{{{ CATALOG_DIR }}}}/{session.name}"))
        assert "ElectricalSeriesAP" in catalog.it.read()

    def test_catalogs_in_catalogs(
        self, session: Path, write_catalog: Callable[..., Any], tmp_path: Path
    ) -> None:
        write_catalog("inner.yaml", it=entry(session))
        outer = write_catalog(
            inner={"driver": "yaml_file_cat", "args": {"path": "{{ CATALOG_DIR }}/inner.yaml"}}
        )
        assert "ElectricalSeriesAP" in outer.inner.it.read()
        assert "inner.it" in outer.walk(depth=2)

    def test_arguments_given_on_opening(self, session: Path, write_catalog: Callable[..., Any]) -> None:
        catalog = write_catalog(it=entry(session))
        assert set(catalog.it(group="units").read().sizes) >= {"unit"}
        assert set(catalog.it.configure_new(group="units").read().sizes) >= {"unit"}

    @pytest.mark.parametrize("option", ["key", "secret", "token", "profile"])
    @pytest.mark.parametrize("value", ["{{ env(NOT_SET_ANYWHERE) }}", "None", None])
    def test_an_empty_credential_is_an_error_and_not_another_identity(
        self, option: str, value: str | None, write_catalog: Callable[..., Any]
    ) -> None:
        catalog = write_catalog(it=entry("s3://bucket/a.nwb.zarr", storage_options={option: value}))
        with pytest.raises(CredentialsError, match="is empty: the environment variable") as caught:
            catalog.it.read()
        assert (caught.value.location, caught.value.path) == ("s3://bucket/a.nwb.zarr", option)
        assert caught.value.found == ("NOT_SET_ANYWHERE" if value and "env" in value else None)

    def test_a_variable_of_the_url_that_is_not_set_is_named(
        self, session: Path, write_catalog: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        catalog = write_catalog(
            s3=entry("s3://{{ env(NOT_SET_1) }}/a.nwb.zarr"),
            local=entry("{{ env('NOT_SET_2') }}{{ CATALOG_DIR }}/a.nwb.zarr"),
            default=entry(f"{{{{ env('NOT_SET', '{session.parent}') }}}}/{session.name}"),
        )
        for name, variable in (("s3", "NOT_SET_1"), ("local", "NOT_SET_2")):
            with pytest.raises(LocationError, match=r"environment variable .* is not set") as caught:
                catalog[name].read()
            assert caught.value.found == variable
        monkeypatch.setenv("NOT_SET_1", "elsewhere")
        assert str(catalog.s3.location) == "s3://elsewhere/a.nwb.zarr"
        # With a default, or where another URL is given, nothing is missing.
        assert SERIES in catalog.default.read()
        assert SERIES in catalog.local(urlpath=str(session)).read()


class TestSecrets:
    """No representation shows what opens a private bucket."""

    @pytest.fixture
    def source(self, write_catalog: Callable[..., Any]) -> NWBZarrSource:
        options = {**CANARIES, "client_kwargs": {"endpoint_url": "http://127.0.0.1:1"}}
        catalog = write_catalog(it=entry("s3://bucket/a.nwb.zarr", storage_options=options))
        source: NWBZarrSource = catalog.it
        return source

    def shown(self, source: NWBZarrSource) -> Iterator[str]:
        yield repr(source)
        yield str(source)
        yield source.yaml()
        yield repr(source._yaml())
        yield repr(source.describe())
        yield repr(source.location)
        yield pickle.dumps(source, protocol=0).decode("latin1")
        yield dask.base.tokenize(source)

    def test_they_are_nowhere_to_be_seen(self, source: NWBZarrSource) -> None:
        for text in self.shown(source):
            assert "CANARY" not in text
        assert f"key: '{MASK}'" in source.yaml()

    def test_intake_s_own_view_of_the_file_is_as_the_file(self, source: NWBZarrSource) -> None:
        # As docs/catalogs.md says: no driver has a say in these.
        catalog = source.catalog_object
        assert "CANARY" in repr(catalog.walk()["it"])
        assert "CANARY" in repr(source.entry.describe())
        assert "CANARY" in catalog.serialize()

    def test_names_passwords_and_signatures_in_urls_are_not_either(self) -> None:
        for url in ("s3://CANARY:CANARY@bucket/a", "https://me:CANARY@host/a?X-Amz-Signature=CANARY"):
            for text in (repr(intake.open_nwbzarr(url)), repr(pickle.dumps(intake.open_nwbzarr(url)))):
                assert "CANARY" not in text

    def test_a_saved_entry_has_none_and_says_so_when_it_is_read(
        self, source: NWBZarrSource, tmp_path: Path
    ) -> None:
        (tmp_path / "saved.yaml").write_text(source.yaml())
        assert "CANARY" not in (tmp_path / "saved.yaml").read_text()
        with pytest.raises(CredentialsError, match="replaced a secret when the entry was saved"):
            intake.open_catalog(str(tmp_path / "saved.yaml")).it.read()

    def test_they_open_the_bucket_all_the_same(self, session: Path, s3_server: S3Server) -> None:
        url = s3_server.upload(s3_server.private_bucket, "source/a.nwb.zarr", session)
        source = intake.open_nwbzarr(url, storage_options=s3_server.signed_options)
        assert "ElectricalSeriesAP" in source.read()
        # In the process that was given them, and in a pickle that was told to take them along.
        assert "ElectricalSeriesAP" in pickle.loads(pickle.dumps(source)).read()
        shipped = intake.open_nwbzarr(
            url, storage_options={**s3_server.signed_options, "ship_credentials": True}
        )
        assert s3_server.secret in pickle.dumps(shipped, protocol=0).decode("latin1")
        assert s3_server.secret not in repr(shipped)


def test_a_pickled_source_is_the_same_source(session: Path, write_catalog: Callable[..., Any]) -> None:
    source = write_catalog(it=entry(session, group="units", chunks={"spike_times_value": 10})).it
    again = pickle.loads(pickle.dumps(source))
    assert (again.name, again.group, again.chunks) == ("it", "units", {"spike_times_value": 10})
    assert dask.base.tokenize(again) == dask.base.tokenize(source)
    xr.testing.assert_identical(again.read().compute(), source.read().compute())


def test_dask_keys_are_stable_and_distinct_per_group(session: Path) -> None:
    def keys(**options: Any) -> set[str]:
        dataset = intake.open_nwbzarr(session, **options).read()
        return {variable.data.name for variable in dataset.variables.values() if variable.chunks}

    assert keys() == keys()
    assert keys(group="units").isdisjoint(keys(group="units", names="path") - keys(group="units"))
    assert keys(group="acquisition/ElectricalSeriesAP").isdisjoint(
        keys(group="processing/ecephys/LFP/ElectricalSeriesLFP")
    )


def test_the_source_s_yaml_opens_the_same_session(session: Path, tmp_path: Path) -> None:
    source = intake.open_nwbzarr(session, group="units", metadata={"lab": "mine"})
    (tmp_path / "saved.yaml").write_text(source.yaml())
    again = intake.open_catalog(str(tmp_path / "saved.yaml")).nwbzarr
    assert again.metadata["lab"] == "mine"
    xr.testing.assert_identical(again.read().compute(), source.read().compute())
