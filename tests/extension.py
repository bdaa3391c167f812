"""Writes a file with an extension's type, in a process of its own: `python -m tests.extension FOLDER`."""

import sys
from pathlib import Path

import numpy as np
from pynwb import get_class, load_namespaces
from pynwb.spec import NWBAttributeSpec, NWBGroupSpec, NWBNamespaceBuilder

from tests.session_files import empty_session, write


def write_colours(folder: Path) -> None:
    namespace = NWBNamespaceBuilder("a series with a colour", "ndx-colour", version="0.1.0", author="test")
    namespace.include_type("TimeSeries", namespace="core")
    namespace.add_spec(
        "ndx-colour.extensions.yaml",
        NWBGroupSpec(
            "a series with a colour",
            neurodata_type_def="ColourSeries",
            neurodata_type_inc="TimeSeries",
            attributes=[NWBAttributeSpec("colour", "its colour", "text")],
        ),
    )
    namespace.export("ndx-colour.namespace.yaml", outdir=str(folder))
    load_namespaces(str(folder / "ndx-colour.namespace.yaml"))
    colour_series = get_class("ColourSeries", "ndx-colour")
    nwbfile = empty_session()
    nwbfile.add_acquisition(
        colour_series(name="light", data=np.arange(5.0), unit="cd", rate=10.0, colour="green")
    )
    write(folder, nwbfile, "colours.nwb.zarr")


if __name__ == "__main__":
    write_colours(Path(sys.argv[1]))
