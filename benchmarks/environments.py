"""Environments: what peers need that cannot be installed beside this package, made by uv when needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence

ENVIRONMENTS: Mapping[str, tuple[str, ...]] = {
    "project": (),
    "obstore": ("--no-sync", "--with", "obstore>=0.12"),
    # Both pin zarr below 3, which this package does not work with.
    "spikeinterface": (
        *("--no-project", "--with", "spikeinterface>=0.105", "--with", "zarr<3", "--with", "hdmf-zarr"),
        *("--with", "pynwb", "--with", "aiohttp", "--with", "fsspec", "--with", "s3fs"),
    ),
    "remfile": ("--no-sync", "--with", "remfile>=0.1.13"),
    "kerchunk": ("--no-project", "--with", "kerchunk>=0.2.9", "--with", "h5py", "--with", "aiohttp"),
    "lazynwb": ("--no-project", "--with", "lazynwb>=1.0", "--with", "aiohttp", "--with", "s3fs"),
}
"""What `uv run` is told for each; the project's own environment needs nothing."""


def interpreter(environment: str) -> list[str]:
    """The command that starts Python in an environment.

    Raises
    ------
    FileNotFoundError
        When an environment of its own is needed and uv is not installed.
    """
    options = ENVIRONMENTS[environment]
    return _python(options) if options else [sys.executable]


def run_pinned(script: str, options: Sequence[str], *arguments: str) -> None:
    """Run a script in an environment that pins what it needs, as `uv run` is told.

    Raises
    ------
    RuntimeError
        When the environment cannot be made, or the script fails; with the end of what it said.
    """
    command = [*_python(options), script, *arguments]
    variables = {**os.environ, "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=variables)  # noqa: S603 (ours)
    if done.returncode:
        raise RuntimeError(f"{script} failed in an environment of {' '.join(options)}: {done.stderr[-500:]}")


def _python(options: Sequence[str]) -> list[str]:
    program = os.environ.get("UV") or shutil.which("uv")
    if program is None:
        raise FileNotFoundError("uv makes the environments of the alternatives: start this with `uv run`.")
    return [program, "run", "--quiet", "--python", sys.executable, *options, "python"]
