"""What the package can do when installed alone: `python smoke.py FOLDER` opens sessions of each format."""

import sys
from pathlib import Path

import xarray as xr
from pynwb import NWBHDF5IO

from intake_nwbzarr import open_nwb, session_info, verify
from intake_nwbzarr.demo.sessions import imaging_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2


def write_sessions(folder: Path) -> list[Path]:
    zarr3, zarr2, hdf5 = folder / "zarr3.nwb.zarr", folder / "zarr2.nwb.zarr", folder / "hdf5.nwb"
    write_zarr3(imaging_session(frames=240, rois=6, pixels=16), zarr3)
    write_zarr2(zarr3, zarr2)
    with NWBHDF5IO(hdf5, "w") as io:
        io.write(imaging_session(frames=240, rois=6, pixels=16))
    return [zarr3, zarr2, hdf5]


def main(folder: Path) -> None:
    for path in write_sessions(folder):
        session = xr.open_dataset(path, engine="nwbzarr", chunks={}).load()
        tree = xr.open_datatree(path, engine="nwbzarr").load()
        found = verify(path)
        if found.different or found.unshown:
            raise SystemExit(found.report)
        name = open_nwb(path).identifier
        print(
            f"{session_info(path).format}: {name}, {len(session.variables)} variables, "
            f"{len(tree.leaves)} objects, {len(found.equal)} fields equal"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
