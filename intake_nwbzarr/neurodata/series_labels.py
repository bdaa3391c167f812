"""What labels the axes of a series beside time and regions: x and y, features, frequency bands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.neurodata.array_parts import array_attributes
from intake_nwbzarr.neurodata.axes import Axes
from intake_nwbzarr.neurodata.metadata import identity
from intake_nwbzarr.neurodata.pieces import Dimension, Labels, Part
from intake_nwbzarr.neurodata.series_members import SeriesMembers

# Short lists that are stored with a series, and the axis that each labels.
_STORED = (("features", "feature"), ("bands", "band"))


def axis_labels(
    members: SeriesMembers, axes: Axes, values: Mapping[str, NDArray[Any]], dimensions: Sequence[Dimension]
) -> Iterator[Labels]:
    """Labels that the schema gives (x, y), or that are stored as a short list (features, bands).

    Parameters
    ----------
    members
        The series.
    axes
        Of its data.
    values
        Its small values.
    dimensions
        Of its data.
    """
    labels = {name: np.asarray(each, object) for name, each in axes.labels.items()}
    labels |= {axis: values[name] for name, axis in _STORED if name in values}
    for dimension in dimensions:
        found = labels.get(dimension.name)
        if found is not None and found.shape == (dimension.size,):
            yield Labels(dimension, found, identity(members.hierarchy[members.path]))


def feature_units(
    members: SeriesMembers, values: Mapping[str, NDArray[Any]], dimensions: Sequence[Dimension]
) -> Iterator[Part]:
    """The unit of each feature of an AbstractFeatureSeries."""
    units = values.get("feature_units")
    for dimension in dimensions:
        if dimension.name == "feature" and units is not None and units.shape == (dimension.size,):
            whose = identity(members.hierarchy[members.path])
            yield Part("feature_units", (dimension,), units, whose, "coordinate")


def band_columns(
    members: SeriesMembers, dimensions: Sequence[Dimension], own_dimension: Callable[[str, int], Dimension]
) -> Iterator[Part]:
    """The columns of a table of frequency bands, such as band_limits, ``(band, bound)``.

    Parameters
    ----------
    members
        The series.
    dimensions
        Of its data.
    own_dimension
        Makes a further dimension of a name and a size.
    """
    node = members.hierarchy[members.path]
    for dimension in dimensions:
        for column, array in members.bands.items():
            if dimension.name == "band" and array.shape[0] == dimension.size:
                words = ("bound", *(f"{column}_dim_{axis}" for axis in range(2, array.ndim)))
                further = (own_dimension(*pair) for pair in zip(words, array.shape[1:], strict=False))
                yield Part(column, (dimension, *further), array, array_attributes(node, array), "coordinate")
