"""Fixtures that every test may use: the sessions that seven hdmf-zarr releases wrote, and of every type."""

import gc
import os
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
import hypothesis
import pytest
from filelock import FileLock

from intake_nwbzarr.hierarchy import documents, recognize
from intake_nwbzarr.transport import base as presence
from intake_nwbzarr.transport import memory_cache as remembering
from tests.servers.http_server import StaticServer
from tests.servers.s3_server import S3Server

# A busy machine is no reason to fail. In CI, Hypothesis has a profile of its own: the same examples always.
if "CI" not in os.environ:
    hypothesis.settings.register_profile("without deadlines", deadline=None)
    hypothesis.settings.load_profile("without deadlines")

# A LocalCluster gives up a worker that is not running this long after an earlier death, also while the
# nanny is restarting it after another one, which tests that kill workers would meet by chance.
dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"})

CORPUS = Path(__file__).parent / "data" / "corpus"
KINDS = ("ecephys", "icephys", "ophys")
RELEASES = ("0.2.0", "0.3.0", "0.6.0", "0.8.0", "0.11.0", "0.13.0", "0.14.0")
# One of each way of storing by default (listed, Zarr 2, Zarr 3), the others with `-m slow`.
QUICK = {("ecephys", "0.3.0"), ("ophys", "0.8.0"), ("icephys", "0.14.0")}
SESSIONS = [
    pytest.param(kind, release, marks=[] if (kind, release) in QUICK else [pytest.mark.slow])
    for kind in KINDS
    for release in RELEASES
]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Use one worker more than there are cores, as tests wait for servers; not where they measure time."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ or config.option.markexpr != "not slow":
        return None
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of garbage collection, which takes a tenth of the run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """A function from (kind, release) to the unpacked store, shared by the whole run: read it only."""
    root = tmp_path_factory.mktemp("corpus")

    def unpack(kind: str, release: str) -> Path:
        folder = root / f"{kind}_hdmf-zarr-{release}.nwb.zarr"
        if not folder.exists():
            with zipfile.ZipFile(CORPUS / f"{folder.name}.zip") as archive:
                archive.extractall(folder)
        return folder

    return unpack


@pytest.fixture(scope="session")
def ecephys(corpus_dir: Callable[[str, str], Path]) -> Path:
    """The ecephys session of the newest release."""
    return corpus_dir("ecephys", RELEASES[-1])


@pytest.fixture(scope="session")
def ophys(corpus_dir: Callable[[str, str], Path]) -> Path:
    """The ophys session of the newest release."""
    return corpus_dir("ophys", RELEASES[-1])


@pytest.fixture(scope="session")
def every_type_path(shared_folder: Path) -> Path:
    """A session with an object of every core type: read it only."""
    from tests.mapping.every_type import every_type

    return written_once(shared_folder / "every_type", every_type)


@pytest.fixture(scope="session")
def every_series_path(shared_folder: Path) -> Path:
    """A session with a series of every core type: read it only."""
    from tests.mapping.every_series import every_series

    return written_once(shared_folder / "every_series", every_series)


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all of its processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def written_once(folder: Path, write: Callable[[Path], Path]) -> Path:
    """What a function writes to a folder, which the first process that needs it calls."""
    with FileLock(f"{folder}.lock"):
        written = folder.with_suffix(".path")
        if not written.exists():
            folder.mkdir()
            written.write_text(str(write(folder)))
        return Path(written.read_text())


@pytest.fixture(scope="session")
def running_s3_server() -> Iterator[S3Server]:
    """The one S3 server of the run; tests take `s3_server`."""
    with S3Server() as server:
        yield server


@pytest.fixture(autouse=True)
def no_settings_of_whoever_runs_the_tests(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Hide their AWS credentials, endpoints and profiles, and their proxies."""
    hidden = ("AWS_", "NWBZARR_")
    for name in [name for name in os.environ if name.startswith(hidden) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    nowhere = tmp_path_factory.getbasetemp() / "nowhere"
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nowhere))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nowhere))


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """Forget what other tests have read when they opened sessions, so that requests can be counted."""
    documents.memory.clear()
    recognize.forms.clear()
    remembering.memory.clear()
    presence.looks.clear()


@pytest.fixture
def s3_server(running_s3_server: S3Server) -> S3Server:
    """An S3 server without faults; see tests/servers/s3_server.py."""
    running_s3_server.reset()
    return running_s3_server


@pytest.fixture
def http_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StaticServer]:
    """A static HTTP server over an empty folder, `http_server.root`."""
    with StaticServer(tmp_path_factory.mktemp("served")) as server:
        yield server
