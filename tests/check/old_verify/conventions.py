"""Conventions and known mistakes: what rightly differs between pynwb and xarray, each with its reason."""

from __future__ import annotations

from typing import Any, Final

from hdmf.container import AbstractContainer

from tests.check.old_verify.fields import Field

# What pynwb writes where a caller gave nothing; a Dataset says nothing either.
_SAYS_NOTHING = (
    "no description",
    "no comments",
    "",
    "Table for describing the bands that DecompositionSeries was generated from.",
)

# The schema fixes these: the time of every series is in seconds, at every sample.
_FIXED: Final = {"starting_time_unit": "seconds", "timestamps_unit": "seconds", "interval": 1}

# Attributes that pynwb 4.2 gives wrongly, by type and field. What the file stores is compared instead.
PYNWB_MISTAKES: Final = {
    ("IndexSeries", "unit"): "always 'N/A', set in __init__",
    ("ElectricalSeries", "unit"): "always 'volts', set in __init__",
    ("OptogeneticSeries", "unit"): "always 'watts', set in __init__",
    **{
        (name, "description"): "always its own text, set in __init__"
        for name in (
            "ElectrodesTable",
            "ExperimentalConditionsTable",
            "FrequencyBandsTable",
            "IntracellularElectrodesTable",
            "IntracellularRecordingsTable",
            "IntracellularResponsesTable",
            "IntracellularStimuliTable",
            "RepetitionsTable",
            "SequentialRecordingsTable",
            "SimultaneousRecordingsTable",
        )
    },
}


def is_omitted(field: Field) -> bool:
    """Whether a Dataset may be silent about a field's value.

    - ``resolution`` -1 means unknown in the schema.
    - What says nothing: "no description", "no comments", empty texts and lists.
    - The unit and interval of timestamps, which the schema fixes.
    - The description that pynwb gives to every table of frequency bands.
    """
    value = field.value
    if field.name in _FIXED:
        return bool(value == _FIXED[field.name])
    if field.name == "resolution":
        return _number(value) == -1.0
    if isinstance(value, str):
        return value in _SAYS_NOTHING
    return getattr(value, "shape", None) == (0,) or (isinstance(value, list | tuple | dict) and not value)


def is_mistaken(container: AbstractContainer, field: Field) -> bool:
    """Whether pynwb is known to be wrong about a field."""
    kinds = (kind.__name__ for kind in type(container).__mro__)
    return any((kind, field.name) in PYNWB_MISTAKES for kind in kinds)


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
