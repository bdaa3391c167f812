"""What the package can do when installed alone: `python smoke.py FOLDER` opens sessions of each format."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import intake
import xarray as xr
from pynwb import NWBHDF5IO

from intake_nwbzarr import open_hierarchy, open_nwb, scan, session_info, verify
from intake_nwbzarr.demo.sessions import imaging_session, write_zarr3
from intake_nwbzarr.demo.zarr2 import write_zarr2
from intake_nwbzarr.errors import NWBZarrError


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
    series = xr.open_dataset(path, engine="nwbzarr", group="acquisition/TwoPhotonSeries")
    for use in (draw, use_profile, use_client, use_s3fs):
        try:
            print(use(series, path))
        except NWBZarrError as error:
            # Which profiles there are is the machine's own.
            print(re.sub(" (Profiles|No AWS profiles) are.*", "", " ".join(str(error).split())))


def draw(series: xr.Dataset, path: Path) -> str:
    return type(series.nwb.plot.image()).__name__


def use_profile(series: xr.Dataset, path: Path) -> None:
    open_hierarchy("s3://lab/a.nwb.zarr", {"profile": "lab"})


def use_client(series: xr.Dataset, path: Path) -> float:
    scan(path, output=path.with_name("table.parquet"))
    sessions = intake.open_nwbzarr_sessions(str(path.with_name("table.parquet")))
    client: object = "a client"
    if find_spec("distributed"):
        from distributed import Client

        client = Client(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    return float(sessions.map(one, give="nwb", client=client).frame["value"].sum())


def one(session: object) -> float:
    return 1.0


def use_s3fs(series: xr.Dataset, path: Path) -> None:
    open_hierarchy(
        "simplecache::s3://lab/a.nwb.zarr", {"s3": {"anon": True, "endpoint_url": "http://127.0.0.1:9"}}
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
