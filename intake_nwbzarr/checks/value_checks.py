"""Check values: whether series are plausible in their unit, and types have their schema in the file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, log10, prod
from typing import Any, Final

import numpy as np

from intake_nwbzarr.checks.checked import Checked, Selection, is_numeric
from intake_nwbzarr.checks.report import Finding
from intake_nwbzarr.checks.storage_checks import LARGE
from intake_nwbzarr.hierarchy.nodes import ArrayNode, GroupNode
from intake_nwbzarr.mapping.schema import is_a
from intake_nwbzarr.transport.request_log import counted

MOST_ALIKE: Final = 20
"""Series of one kind in one group of which values are read; of more, some of all."""

# Elements of a block, and how many blocks of one array are read.
_BLOCK: Final = 2**18
_BLOCKS: Final = 3

_CORE: Final = frozenset({"core", "hdmf-common", "hdmf-experimental"})


@dataclass(frozen=True)
class _Plausible:
    """What a type of series measures, in the SI unit: peaks beyond the limits are called implausible."""

    kind: str
    unit: str
    least: float
    most: float
    # The usual range of peaks, from which a missing power of ten is estimated.
    usual: tuple[float, float]


# The nearest type first.
_PLAUSIBLE: Final = (
    _Plausible("ElectricalSeries", "V", 1e-9, 1.0, (3e-6, 3e-2)),
    _Plausible("VoltageClampSeries", "A", 1e-15, 1e-5, (1e-12, 1e-7)),
    # A stimulus of zero is a step as others are.
    _Plausible("CurrentClampStimulusSeries", "A", 0.0, 1e-5, (1e-12, 1e-7)),
    _Plausible("VoltageClampStimulusSeries", "V", 0.0, 1.0, (1e-3, 0.3)),
    _Plausible("CurrentClampSeries", "V", 1e-6, 1.0, (1e-3, 0.3)),
    _Plausible("SpatialSeries", "m", 0.0, 1e3, (1e-2, 10.0)),
)

# Factors to the SI unit.
_UNITS: Final = {
    **dict.fromkeys(("v", "volt", "volts"), ("V", 1.0)),
    **dict.fromkeys(("mv", "millivolt", "millivolts"), ("V", 1e-3)),
    **dict.fromkeys(("uv", "µv", "microvolt", "microvolts"), ("V", 1e-6)),
    **dict.fromkeys(("a", "amp", "ampere", "amperes"), ("A", 1.0)),
    **dict.fromkeys(("na", "nanoampere", "nanoamperes"), ("A", 1e-9)),
    **dict.fromkeys(("pa", "picoampere", "picoamperes"), ("A", 1e-12)),
    **dict.fromkeys(("m", "meter", "meters", "metre", "metres"), ("m", 1.0)),
    **dict.fromkeys(("cm", "centimeter", "centimeters"), ("m", 1e-2)),
    **dict.fromkeys(("mm", "millimeter", "millimeters"), ("m", 1e-3)),
}


def value_findings(session: Checked) -> Iterator[Finding]:
    """Yield series whose values are far from what is measured in their unit."""
    chosen: list[Selection] = []
    of: list[_Plausible] = []
    for series in _some_of_each_kind(session):
        data, plausible = series
        for key in _samples(data):
            chosen.append((data, key))
            of.append(plausible)
    peaks: dict[str, tuple[ArrayNode, _Plausible, list[float]]] = {}
    for (data, _), plausible, values in zip(chosen, of, session.read(chosen), strict=True):
        if values is None or not values.size:
            continue
        magnitudes = np.abs(values[np.isfinite(values)].astype(np.float64))
        if magnitudes.size:
            # Not the greatest: single artifacts say nothing of the conversion.
            peak = float(np.percentile(magnitudes, 99))
            peaks.setdefault(data.path, (data, plausible, []))[2].append(peak)
    for data, plausible, stored in peaks.values():
        yield from _judged(session, data, plausible, max(stored))


def _some_of_each_kind(session: Checked) -> Iterator[tuple[ArrayNode, _Plausible]]:
    kinds: dict[object, list[tuple[ArrayNode, _Plausible]]] = {}
    for group in session.groups:
        data = session.nodes.get(f"{group.path}/data")
        if not isinstance(data, ArrayNode) or not data.size or not is_numeric(data.dtype):
            continue
        plausible = _plausible(session, group)
        unit = _UNITS.get(str(data.attributes.get("unit", "")).lower())
        if plausible is None or unit is None or unit[0] != plausible.unit:
            continue
        if min(prod(data.inner_chunks), data.size) * data.dtype.itemsize > LARGE:
            session.unchecked.append(f"values of {data.path}: its chunks are too large")
            continue
        conversion = str(data.attributes.get("conversion"))
        parent = group.path.rpartition("/")[0]
        kind = parent, group.neurodata_type, data.attributes["unit"], conversion, str(data.dtype)
        kinds.setdefault(kind, []).append((data, plausible))
    for members in kinds.values():
        if len(members) > MOST_ALIKE:
            places = np.linspace(0, len(members) - 1, MOST_ALIKE).astype(int)
            left = len(members) - MOST_ALIKE
            session.unchecked.append(
                f"values of {left:,} series that are stored like {MOST_ALIKE} others, as {members[0][0].path}"
            )
            yield from (members[place] for place in places)
        else:
            yield from members


def _plausible(session: Checked, group: GroupNode) -> _Plausible | None:
    if group.neurodata_type is None or group.neurodata_type == "IZeroClampSeries":
        return None
    return next((each for each in _PLAUSIBLE if is_a(session.hierarchy, group, each.kind)), None)


def _samples(data: ArrayNode) -> Iterator[tuple[slice, ...]]:
    """Yield selections within single chunks: of the first, the middle and the last of the samples."""
    inner = data.inner_chunks
    count = -(-data.shape[0] // inner[0]) if data.ndim else 0
    if not count:
        yield ()
        return
    others = tuple(
        slice(0, min(width, length)) for width, length in zip(inner[1:], data.shape[1:], strict=True)
    )
    rows = max(_BLOCK // max(prod(each.stop for each in others), 1), 1)
    for chunk in sorted({0, count // 2, count - 1})[:_BLOCKS]:
        start = chunk * inner[0]
        yield slice(start, min(start + min(inner[0], rows), data.shape[0])), *others


def _judged(session: Checked, data: ArrayNode, plausible: _Plausible, stored: float) -> Iterator[Finding]:
    conversion = _number(data.attributes.get("conversion"), 1.0)
    _, factor = _UNITS[str(data.attributes["unit"]).lower()]
    channel = session.nodes.get(f"{data.path.rpartition('/')[0]}/channel_conversion")
    if isinstance(channel, ArrayNode):
        (factors,) = session.read([(channel, ())])
        if factors is not None and factors.size and is_numeric(factors.dtype):
            conversion *= float(np.median(np.abs(factors)))
    peak = stored * abs(conversion) * factor
    if not isfinite(peak) or peak == 0 or plausible.least <= peak <= plausible.most:
        return
    power = _missing_power(peak, plausible)
    probably = "" if power is None else f"; a factor of 1e{power:+03d} is probably missing"
    yield session.finding(
        "implausible-values",
        data.path,
        f"{data.dtype} with conversion {_number(data.attributes.get('conversion'), 1.0):g} reaches "
        f"{peak:.3g} {plausible.unit}{probably}.",
    )


def _missing_power(peak: float, plausible: _Plausible) -> int | None:
    """Return the power of ten that makes a peak usual, of steps of units first; None if none does."""
    least, most = plausible.usual
    away = round(log10((least * most) ** 0.5 / peak))
    steps = (-12, -9, -6, -3, 3, 6, 9, 12)
    powers = sorted((*steps, *range(-15, 16)), key=lambda power: (power not in steps, abs(power - away)))
    return next((power for power in powers if power and least <= peak * 10.0**power <= most), None)


def _number(value: Any, default: float) -> float:
    if isinstance(value, list | tuple | np.ndarray) and len(value) == 1:
        value = value[0]
    return float(value) if isinstance(value, int | float | np.number) else default


def schema_findings(session: Checked) -> Iterator[Finding]:
    """Yield namespaces of types in the file whose schemas are not cached in it."""
    hierarchy = session.hierarchy
    used: dict[str, list[str]] = {}
    for node in session.nodes.values():
        namespace = node.attributes.get("namespace")
        if node.neurodata_type is not None and isinstance(namespace, str) and namespace not in _CORE:
            used.setdefault(namespace, []).append(node.path)
    if not used:
        return
    hierarchy.load_specifications()
    folder = hierarchy.specifications
    cached = set(hierarchy.children(folder)) if folder in hierarchy else set()
    for namespace, paths in used.items():
        if namespace not in cached:
            if session.listed is None and not hierarchy.location.is_hdf5 and folder not in hierarchy:
                session.unchecked.append(
                    f"whether the schema of {namespace} is cached: the storage cannot be listed"
                )
                continue
            found = f"{namespace!r}, of {counted(len(paths), 'object')}."
            yield session.finding("no-schema", paths[0], found)
