"""The session itself and its subject: attributes of the root, wherever under `general` they are stored."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import xarray as xr
from hdmf.container import AbstractContainer
from pynwb import NWBFile

from intake_nwbzarr.errors import MappingWarning
from intake_nwbzarr.mapping.time_coordinates import reference_time
from tests.check.old_verify.fields import Field, fields_of
from tests.check.old_verify.findings import Difference, Equal, Finding
from tests.check.old_verify.objects import compare_field, compare_object, holds_objects
from tests.check.old_verify.sides import Sides


def compare_root(nwbfile: NWBFile, shown: xr.Dataset, sides: Sides) -> Iterator[Finding]:
    """Compare the session's metadata with the attributes of the root.

    Parameters
    ----------
    nwbfile
        As pynwb read it.
    shown
        The root's Dataset.
    sides
        Both sides.
    """
    deep = {}
    for field in fields_of(nwbfile, "", sides):
        group = field.dataset.rpartition("/")[0]
        if group not in {"", "general"} and not holds_objects(field.value):
            deep[field.name] = field
    yield from compare_object(nwbfile, "", shown, sides, compared=tuple(deep))
    yield _compare_zero(nwbfile, shown, sides)
    for field in deep.values():
        # What is stored further down is shown by the group that holds it.
        group, _, name = field.dataset.rpartition("/")
        there = sides.node(group)
        where = shown if there is None else there
        own = Field(field.name, field.value, name, field.attribute)
        yield from compare_field(nwbfile, "", own, where, sides)


def _compare_zero(nwbfile: NWBFile, shown: xr.Dataset, sides: Sides) -> Finding:
    """Compare the instants that times count from: decoded times are as far apart as these."""
    name, kind = "zero of decoded times", sides.kind("")
    expected = nwbfile.timestamps_reference_time
    with warnings.catch_warnings():
        # Opening warns of what the file lacks; here, the two are compared.
        warnings.simplefilter("ignore", MappingWarning)
        found = reference_time(shown.attrs, str(sides.hierarchy.location)).instant
    if found == expected:
        return Equal("", name, kind)
    return Difference("", name, kind, expected.isoformat(), found.isoformat())


def compare_subject(subject: AbstractContainer, sides: Sides) -> Iterator[Finding]:
    """Compare the subject with the root's attributes ``subject_<name>``, and its arrays with its own node."""
    root = sides.node("")
    if root is None:
        return
    named = {
        str(name).removeprefix("subject_"): value
        for name, value in root.attrs.items()
        if str(name).startswith("subject_")
    }
    # Its own id is called `subject_id` in the file.
    attributes = named | ({"subject_id": named["id"]} if "id" in named else {})
    node = sides.node("general/subject")
    shown = (xr.Dataset() if node is None else node).assign_attrs(attributes)
    yield from compare_object(subject, "general/subject", shown, sides)
