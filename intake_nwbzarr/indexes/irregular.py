"""The time of an irregularly sampled series: timestamps that stay in the file until they are needed."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, ClassVar

import numpy as np

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.indexes.in_memory import in_memory
from intake_nwbzarr.indexes.kinds import TimeIndexKind
from intake_nwbzarr.indexes.lazy import LazyTimeIndex
from intake_nwbzarr.indexes.stored import ReadableArray, StoredTimestamps
from intake_nwbzarr.indexes.timestamps import TimestampView


class IrregularTimeIndex(LazyTimeIndex, metaclass=TimeIndexKind):
    """Time from timestamps, stored or in memory; of stored ones, only the blocks that are needed are read.

    Making, showing, copying and pickling an index of stored timestamps read nothing. A label is looked for
    between the first and last timestamps of few blocks. They must ascend, as NWB wants them to; where a block
    that is read shows that they do not, or holds a NaN, selection by label raises a `SelectionError` that
    says where, and `isel` still works. Timestamps of any other number type are widened to float64, so float32
    ones are found by their exact value or by ``method="nearest"``. Made by `from_array`, always as a
    `LazyTimeIndex`.
    """

    regular: ClassVar[bool] = False

    @classmethod
    def from_array(
        cls,
        array: ReadableArray | Any,
        dim: str = "time",
        name: Hashable | None = None,
        attrs: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> LazyTimeIndex:
        """Index the time of an irregularly sampled series, or times of your own.

        Parameters
        ----------
        array
            Timestamps in seconds, (time,). Either an object with ``shape``, ``dtype``, ``chunks`` and
            ``read(key)``, of ascending ones that are read when needed, or anything numpy makes an array of,
            which is copied and may be in any order.
        dim
            The dimension that is indexed.
        name
            The name of the coordinate; that of the dimension unless given.
        attrs
            Attributes of the coordinate.
        source
            What errors call the array, such as its path and location.

        Raises
        ------
        MetadataError
            When the array is not one-dimensional, or not of numbers.

        Examples
        --------
        >>> import xarray as xr
        >>> index = IrregularTimeIndex.from_array([0.0, 0.5, 2.0])
        >>> xr.Dataset(coords=index.coordinates()).sel(time=slice(0.5, 9)).time.values
        array([0.5, 2. ])
        """
        readable = array if isinstance(array, ReadableArray) else np.asarray(array)
        named = source or f"'{dim if name is None else name}'"
        if len(readable.shape) != 1 or np.dtype(readable.dtype).kind not in "iuf":
            raise MetadataError(
                f"Timestamps of {named} must be numbers along one dimension, found {readable.dtype} of shape "
                f"{tuple(readable.shape)}."
            )
        if isinstance(readable, np.ndarray):
            view = in_memory(readable.astype(np.float64))
        else:
            timestamps = StoredTimestamps(readable, named)
            view = TimestampView(timestamps, range(timestamps.size))
        return LazyTimeIndex(view, dim, dim if name is None else name, attrs)
