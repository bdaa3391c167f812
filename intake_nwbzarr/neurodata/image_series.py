"""What series of images have beside their data: files of frames, the images an index points to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake_nwbzarr.arrays import StoredArray
from intake_nwbzarr.errors import ChunkError, warn_caller
from intake_nwbzarr.hierarchy.links import UNREACHABLE
from intake_nwbzarr.hierarchy.nodes import ArrayNode
from intake_nwbzarr.neurodata.derived import Elementwise, Lookup
from intake_nwbzarr.neurodata.images import ORDER
from intake_nwbzarr.neurodata.metadata import identity
from intake_nwbzarr.neurodata.pieces import Dimension, IrregularTime, Part, RegularTime, stored
from intake_nwbzarr.neurodata.series_members import SeriesMembers
from intake_nwbzarr.neurodata.series_time import TimeBase
from intake_nwbzarr.neurodata.texts import as_strings, paths_of

_FILES = "external_file"
_FIRST_FRAMES = "starting_frame"


def external_files(
    members: SeriesMembers, values: Mapping[str, NDArray[Any]], time: TimeBase
) -> tuple[Part, ...]:
    """The files that an ImageSeries keeps its frames in, as a table; they are never opened.

    Parameters
    ----------
    members
        The series.
    values
        Its small values, the files' names among them.
    time
        Its time base.

    Returns
    -------
    tuple of Part
        ``external_file``, ``starting_frame`` and ``external_file_time`` on ``file``: the path as stored, the
        number of the file's first frame, and that frame's time in seconds.

    Warns
    -----
    MappingWarning
        When the first frames are not as many as the files, or lie beyond the timestamps.
    """
    if _FILES not in values:
        return ()
    files = as_strings(np.atleast_1d(values[_FILES])).astype(object)
    node = members.small[_FILES].node
    where = (str(members.hierarchy.location), members.path, "file")
    dimension = Dimension(("axis", *where), "file", f"{members.name}_file", files.size, members.path)
    own = {"neurodata_type": members.neurodata_type} | identity(node)
    table: tuple[Part, ...] = (Part(_FILES, (dimension,), files, own),)
    first = node.attributes.get(_FIRST_FRAMES, [0] if files.size == 1 else [])
    # Lists of unequal lengths are objects.
    frames = np.atleast_1d(np.asarray(first if _is_flat(first) else None))
    if frames.shape != files.shape or frames.dtype.kind not in "iu":
        warn_caller(
            f"{members.where} has {files.size} external files and the first frames {first}: the "
            "files are shown without."
        )
        return table
    table += (Part(_FIRST_FRAMES, (dimension,), frames.astype(np.int64), own),)
    times = _times_of(frames.astype(np.int64), members, time)
    if times is not None:
        described = own | {"units": "s", "description": "time of each file's first frame"}
        table += (Part(f"{_FILES}_time", (dimension,), times, described, is_time=True),)
    return table


def _is_flat(value: Any) -> bool:
    return not isinstance(value, list | tuple) or not any(isinstance(each, list | dict) for each in value)


def _times_of(
    frames: NDArray[np.int64], members: SeriesMembers, time: TimeBase
) -> NDArray[np.float64] | Lookup | None:
    base = next(iter(time.indexes), None)
    if isinstance(base, RegularTime):
        return base.starting_time + frames / base.rate
    if isinstance(base, IrregularTime):
        if frames.size and not 0 <= frames.min() <= frames.max() < base.timestamps.size:
            warn_caller(
                f"{members.where} has files that begin at frames {frames.tolist()}, and "
                f"{base.timestamps.size} timestamps: the files are shown without times."
            )
            return None
        return Lookup(base.timestamps, frames, base.timestamps.node.path)
    return None


def order_of_images(members: SeriesMembers) -> StoredArray | None:
    """The references that say which image an IndexSeries means by a number; None where there are none."""
    link = members.links.get("indexed_images")
    if link is None:
        return None
    try:
        target = members.hierarchy.resolve(f"{members.path}/indexed_images")
        order = target.hierarchy.get(f"{target.path}/{ORDER}")
    except UNREACHABLE:
        return None
    return stored(target.hierarchy, order) if isinstance(order, ArrayNode) else None


def indexed_images(
    members: SeriesMembers, order: NDArray[Any] | None, dimensions: tuple[Dimension, ...]
) -> tuple[Part, ...]:
    """The name of the image that each sample of an IndexSeries points to: ``image``, along its time.

    Parameters
    ----------
    members
        The series.
    order
        The images' references, in the order that is indexed; None where the file does not say.
    dimensions
        Of the data.
    """
    if order is None or members.data is None or members.data.dtype.kind not in "iu":
        return ()
    # None of what is not there: a name would say that it is.
    container = members.hierarchy.resolve(f"{members.path}/indexed_images").hierarchy
    paths = paths_of(order).ravel().tolist()
    names = tuple(path.rpartition("/")[2] if path in container else "" for path in paths)
    if missing := [path for path in paths if path not in container]:
        warn_caller(
            f"{members.where} refers to {len(missing)} images that are not in the file, such as "
            f"{missing[0]!r}: samples that show them name no image."
        )
    array = Elementwise(_names_at, (members.data,), np.dtype(object), (names, members.data.node.path))
    described = {"description": f"name of the image in {members.links['indexed_images']!r}"}
    whose = {"neurodata_type": members.neurodata_type} | identity(members.data.node)
    return (Part("image", dimensions, array, whose | described),)


def _names_at(names: tuple[str, ...], path: str, positions: NDArray[Any]) -> NDArray[Any]:
    if positions.size and (positions.min() < 0 or positions.max() >= len(names)):
        outside = positions[(positions < 0) | (positions >= len(names))].flat[0]
        raise ChunkError(
            f"{path!r} holds {outside}, which is none of the {len(names)} images it points at. The file is "
            "damaged; the numbers are in the series' data."
        )
    return np.asarray(names, object)[positions.astype(np.int64)]
