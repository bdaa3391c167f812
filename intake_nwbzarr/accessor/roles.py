"""Roles of variables in their neurodata objects, from the attributes that the mapping writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

# The attributes that releases before 0.2 did not write.
_ROLES = frozenset({"nwb_role", "nwb_table", "ragged_bound"})

# What times are stored as.
_TIMES = frozenset({"timestamps", "starting_time", "times"})


def roles(variables: Mapping[Any, xr.Variable]) -> dict[str, Mapping[Any, Any]]:
    """Return variables' attributes by name, with roles also where an earlier release saved the Dataset."""
    found: dict[str, Mapping[Any, Any]] = {str(name): variable.attrs for name, variable in variables.items()}
    if any(not attributes.keys().isdisjoint(_ROLES) for attributes in found.values()):
        return found
    divided = {own.get("ragged_values") for own in found.values()}
    return {name: {**own, **_guessed(name, own, divided)} for name, own in found.items()}


def _guessed(name: str, own: Mapping[Any, Any], divided: set[Any]) -> dict[str, Any]:
    """Guess roles by names and paths: Datasets that were saved by release 0.1 say no more."""
    found = {}
    path, owner = str(own.get("nwb_path", "")), own.get("nwb_object")
    if "ragged_values" in own:
        # A name that a column had already was given underscores more.
        called = str(own.get("nwb_column", name)).rstrip("_")
        found["ragged_bound"] = "start" if called.endswith("_start") else "count"
    if path.rpartition("/")[2] in _TIMES and path != owner:
        found["nwb_role"] = "time"
    elif "nwb_column" in own and path not in divided:
        found["nwb_table"] = str(owner).rpartition("/")[2]
    elif path and owner is None:
        found["nwb_role"] = "data"
    return found
