"""The imaging session, written by hdmf-zarr 0.13 itself, run as a script in an environment that pins it.

Zarr 2 as that release writes it: references as pickles, copies of the schemas that the consolidated metadata
do not name. The installed release writes Zarr 3 only.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from typing import Any

ENVIRONMENT = (
    *("--no-project", "--with", "hdmf-zarr==0.13.0", "--with", "pynwb==4.2.0"),
    *("--with", "zarr==2.18.7", "--with", "numcodecs==0.15.1"),
)
"""What `uv run` is told."""


def main() -> None:
    """Write to the folder that is named first, with as many cells as are named second."""
    from hdmf_zarr.nwb import NWBZarrIO

    warnings.simplefilter("ignore")
    with NWBZarrIO(sys.argv[1], mode="w") as io:
        io.write(_sessions().imaging_session(frames=240, rois=int(sys.argv[2]), pixels=16))


def _sessions() -> Any:
    """Load the module that makes the session from its file: the package itself is not installed here."""
    file = Path(__file__).parents[1] / "intake_nwbzarr" / "demo" / "sessions.py"
    specification = importlib.util.spec_from_file_location("sessions", file)
    assert specification is not None  # noqa: S101 (a file of Python)
    assert specification.loader is not None  # noqa: S101 (a file of Python)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
