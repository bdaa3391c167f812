"""Small sessions with units and trials, on a server, as a search would have found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from intake_nwbzarr import open_hierarchy
from intake_nwbzarr.location.location import locate
from intake_nwbzarr.sessions.selected import Selected, forget
from tests.session_files import empty_session, write

# Sessions of the fixtures.
COUNT = 6


def write_session(folder: Path, number: int) -> Path:
    """Write a session with `number % 3 + 1` units, whose spikes tell it from others."""
    nwbfile = empty_session(session_id=f"ses-{number}")
    for unit in range(number % 3 + 1):
        nwbfile.add_unit(spike_times=np.arange(unit + 2) / 10 + number)
    for start in (0.0, 1.0):
        nwbfile.add_trial(start_time=number + start, stop_time=number + start + 0.5)
    return write(folder, nwbfile, f"s{number}.nwb.zarr")


def select(url: str, number: int, options: Mapping[str, Any] | None = None, **fields: Any) -> Selected:
    """Return a session as a search finds it."""
    location = locate(url, options)
    known: dict[str, Any] = {
        "etag": open_hierarchy(location).etag,
        "paths": {"units": ("units",), "trials": ("intervals/trials",)},
        "labels": {"subject_id": f"m{number}", "species": "Mus musculus", "session_id": f"ses-{number}"},
    }
    selected = Selected(str(location), location, **(known | fields))
    forget(selected)
    return selected


def counts(units: xr.Dataset, trials: xr.Dataset) -> dict[str, float]:
    """Return numbers that tell sessions apart; what most tests map."""
    spikes = units.spike_times.values
    return {"units": units.sizes["unit"], "last": float(spikes.max()), "trials": trials.sizes["trial"]}


def serially(found: Sequence[Selected], function: Any) -> dict[str, Any]:
    """Return the results of a plain loop, opened object by object."""
    results = {}
    for selected in found:
        place: Any = selected.location
        opened = {
            name: xr.open_dataset(place, engine="nwbzarr", group=path)
            for name, (path,) in selected.paths.items()
        }
        results[selected.key] = function(**opened)
    return results
