"""The sessions that most of these tests share, written once a run: read them only."""

from pathlib import Path

import pytest
import xarray as xr

from tests.accessor.peri_event_session import peri_event_session
from tests.accessor.timed_session import timed_session
from tests.session_files import opened


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session with everything that has a time."""
    return timed_session(tmp_path_factory.mktemp("timed"))


@pytest.fixture(scope="module")
def dataset(path: Path) -> xr.Dataset:
    return opened(path)


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The session of units, trials and series to align."""
    return peri_event_session(tmp_path_factory.mktemp("peri_event"))


@pytest.fixture
def ecephys(ecephys: Path) -> xr.Dataset:
    return opened(ecephys)


@pytest.fixture
def ophys(ophys: Path) -> xr.Dataset:
    return opened(ophys)


@pytest.fixture
def units(session: Path) -> xr.Dataset:
    return opened(session, "units")
