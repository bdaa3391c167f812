"""The time of an irregularly sampled series: timestamps that stay in the file until they are needed."""

import asyncio
from collections.abc import Hashable, Mapping
from typing import Any, Self

import numpy as np
import xarray as xr
from xarray.backends import BackendArray

from intake_nwbzarr.errors import MetadataError
from intake_nwbzarr.indexes.lazy import LazyTimeIndex
from intake_nwbzarr.indexes.stored import ArrayInMemory, ReadableArray, StoredTimestamps
from intake_nwbzarr.indexes.timestamps import Floats, TimestampView
from intake_nwbzarr.xarray_internals import (
    ExplicitIndexer,
    IndexingSupport,
    LazilyIndexedArray,
    async_explicit_indexing_adapter,
    explicit_indexing_adapter,
)


class IrregularTimeIndex(LazyTimeIndex):
    """Time from stored timestamps, of which only the blocks that a selection touches are read.

    Making, showing, copying and pickling this index read nothing. A label is looked for between the first and
    last timestamps of few blocks. Timestamps must ascend, as NWB wants them to; where a block that is read
    shows that they do not, or holds a NaN, selection by label raises a `SelectionError` that says where, and
    `isel` still works. Timestamps of any other number type are widened to float64, so float32 ones are found
    by their exact value or by ``method="nearest"``. Made by `from_array`.
    """

    @classmethod
    def from_array(
        cls,
        array: ReadableArray | Any,
        dim: str = "time",
        name: Hashable | None = None,
        attrs: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> Self:
        """Index the time of an irregularly sampled series.

        Parameters
        ----------
        array
            Ascending timestamps in seconds, (time,): an object with ``shape``, ``dtype``, ``chunks`` and
            ``read(key)``, which is read when needed, or anything numpy makes an array of.
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
        >>> index = IrregularTimeIndex.from_array([0.0, 0.5, 2.0])
        >>> xr.Dataset(coords=index.coordinates()).sel(time=slice(0.5, 9)).time.values
        array([0.5, 2. ])
        """
        readable = array if isinstance(array, ReadableArray) else ArrayInMemory(np.asarray(array))
        named = source or f"'{dim if name is None else name}'"
        if len(readable.shape) != 1 or np.dtype(readable.dtype).kind not in "iuf":
            raise MetadataError(
                f"Timestamps of {named} must be numbers along one dimension, found {readable.dtype} of shape "
                f"{tuple(readable.shape)}."
            )
        timestamps = StoredTimestamps(readable, named)
        return cls(
            TimestampView(timestamps, range(timestamps.size)), dim, dim if name is None else name, attrs
        )

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> Self:
        """Index a coordinate that is in memory already, for `Dataset.set_xindex`."""
        ((name, variable),) = variables.items()
        (dim,) = variable.dims if variable.ndim == 1 else (str(name),)
        return cls.from_array(variable.values, str(dim), name, variable.attrs, **options)

    def create_variables(
        self, variables: Mapping[Any, xr.Variable] | None = None
    ) -> dict[Hashable, xr.Variable]:
        """Give the time coordinate; its values are read when asked for."""
        known = None if variables is None else variables.get(self.name)
        attributes = self.attributes if known is None else known.attrs
        encoding = None if known is None else known.encoding
        data = LazilyIndexedArray(_TimestampArray(self.view))
        return {self.name: xr.Variable((self.dim,), data, attrs=attributes, encoding=encoding)}

    def __repr__(self) -> str:
        return f"IrregularTimeIndex(size={self.size}, dim={self.dim!r})"

    def _repr_inline_(self, max_width: int) -> str:
        return "IrregularTimeIndex"[:max_width]


class _TimestampArray(BackendArray):
    """A view of stored timestamps as xarray reads arrays."""

    def __init__(self, view: TimestampView) -> None:
        self.view = view
        self.shape = (len(view),)
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, key: ExplicitIndexer) -> Floats:
        result: Floats = explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._read)
        return result

    async def async_getitem(self, key: ExplicitIndexer) -> Floats:
        result: Floats = await async_explicit_indexing_adapter(
            key, self.shape, IndexingSupport.OUTER, self._read_async
        )
        return result

    def __dask_tokenize__(self) -> object:
        return (type(self).__qualname__, self.view.timestamps, self.view.samples)

    def _read(self, key: tuple[Any, ...]) -> Any:
        (selected,) = key
        return self.view[selected].values() if isinstance(selected, slice) else self.view.at(selected)

    async def _read_async(self, key: tuple[Any, ...]) -> Any:
        return await asyncio.to_thread(self._read, key)
