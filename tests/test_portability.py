"""What Windows and macOS lack is not used, or does without: seams that can be tried on any system."""

from __future__ import annotations

import ast
import os
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import xarray as xr

import intake_nwbzarr
from intake_nwbzarr import download
from intake_nwbzarr.location import options as cache_option
from intake_nwbzarr.location.urls import file_url, path_of
from intake_nwbzarr.transport import disk_cache as cache_folder
from tests.servers.http_server import StaticServer

type Corpus = Callable[[str, str], Path]

PACKAGE = Path(intake_nwbzarr.__file__).parent
# Without a counterpart on Windows.
MODULES = {"fcntl", "grp", "pwd", "resource", "termios", "pty", "syslog"}
OF_OS = {
    "chown", "fchdir", "fchmod", "fchown", "fork", "getegid", "getgid", "getuid", "lchown", "mkfifo", "mknod",
    "posix_fadvise", "pread", "preadv", "pwrite", "pwritev", "sched_getaffinity", "sendfile", "statvfs",
    "uname", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK",
}  # fmt: skip


def test_no_module_needs_what_windows_lacks() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    assert not {name.name for name in names} & MODULES, path
                case ast.ImportFrom(module=module):
                    assert module not in MODULES, path
                case ast.Attribute(value=ast.Name(id="os"), attr=name):
                    assert name not in OF_OS, path


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("C:\\data\\sub 1.nwb.zarr", "file:///C:/data/sub 1.nwb.zarr"),
        ("c:\\", "file:///c:/"),
        ("\\\\server\\share\\a.nwb.zarr", "file://server/share/a.nwb.zarr"),
    ],
)
def test_paths_of_windows_are_urls_and_back(path: str, url: str) -> None:
    assert file_url(PureWindowsPath(path)) == url
    assert PureWindowsPath(path_of(url, windows=True)) == PureWindowsPath(path)


@pytest.mark.parametrize("path", ["/data/a b.nwb.zarr", "/C:/x", "/", "/data/50%.nwb.zarr"])
def test_other_paths_are_urls_and_back(path: str) -> None:
    assert path_of(file_url(Path(path)), windows=False) == path


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this system has and Windows has not, taken away."""
    # The rest is what Python's own modules use here.
    for name in ("pread", "pwrite", "geteuid", "O_CLOEXEC", "O_NOFOLLOW"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setattr(os, "supports_fd", os.supports_fd - {os.utime})
    monkeypatch.setattr(cache_folder, "_HAS_OWNERS", False)


def test_a_local_session_is_read_and_written_with_what_windows_has(
    lacking: None, corpus_dir: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The library of file locks uses these on systems that have them.
    for name in ("fchmod", "O_NONBLOCK"):
        monkeypatch.delattr(os, name, raising=False)
    session = Path(shutil.copytree(corpus_dir("ecephys", "0.11.0"), tmp_path / "a.nwb.zarr"))
    with xr.open_dataset(session, engine="nwbzarr", group="acquisition/ElectricalSeriesAP") as dataset:
        assert np.any(dataset["data"].values)
    intake_nwbzarr.consolidate(session)


def test_a_chunk_cache_and_a_download_work_with_what_windows_has(
    lacking: None, corpus_dir: Corpus, http_server: StaticServer, tmp_path: Path
) -> None:
    shutil.copytree(corpus_dir("ecephys", "0.14.0"), http_server.root / "a.nwb.zarr")
    url = f"{http_server.url}/a.nwb.zarr"
    for _ in range(2):
        http_server.reset()
        options = {"chunk_cache": {"folder": str(tmp_path / "cache"), "size": 10**8}}
        dataset = xr.open_dataset(
            url, engine="nwbzarr", group="acquisition/ElectricalSeriesAP", storage_options=options
        )
        assert np.any(dataset["data"].values)
    assert http_server.count("ElectricalSeriesAP/data/c") == 0
    download(url, tmp_path / "copy.nwb.zarr")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "copy.nwb.zarr"]


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(cache_option, "user_cache_path", lambda name, appauthor: tmp_path / name)
    assert cache_option.default_folder() == tmp_path / "intake-nwbzarr"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_option.default_folder().parts[-3:] == ("Library", "Caches", "intake-nwbzarr")


def test_locations_of_windows_travel_as_text() -> None:
    url = file_url(PureWindowsPath("D:\\lab\\a.nwb.zarr"))
    assert pickle.loads(pickle.dumps(intake_nwbzarr.location.location.Location(url))).url == url
