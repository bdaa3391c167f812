"""Writes a file with an extension's type, in a process of its own: `python -m tests.extension FOLDER`."""

import datetime as dt
import sys
from pathlib import Path

import numpy as np
from hdmf_zarr.nwb import NWBZarrIO
from pynwb import NWBFile, get_class, load_namespaces
from pynwb.spec import NWBAttributeSpec, NWBGroupSpec, NWBNamespaceBuilder


def write(folder: Path) -> None:
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
    nwbfile = NWBFile("colours", "colours", dt.datetime(2024, 5, 1, tzinfo=dt.UTC))
    nwbfile.add_acquisition(
        colour_series(name="light", data=np.arange(5.0), unit="cd", rate=10.0, colour="green")
    )
    with NWBZarrIO(str(folder / "colours.nwb.zarr"), mode="w") as io:
        io.write(nwbfile)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
