"""An xarray index of time without timestamps in memory: exact selection and alignment for any session length.

`RegularTimeIndex` has a starting time and a rate; `IrregularTimeIndex` reads the few stored timestamps it
needs. Both make a `LazyTimeIndex`, so that they align with one another, and work without the rest of the
package::

    index = RegularTimeIndex.from_rate(starting_time=0.0, rate=30_000.0, size=108_000_000)
    dataset = xr.Dataset({"data": ("time", data)}, coords=index.coordinates())
    dataset.sel(time=slice(10, 20))
"""

from intake_nwbzarr.indexes.index import IrregularTimeIndex, LazyTimeIndex, RegularTimeIndex

__all__ = ["IrregularTimeIndex", "LazyTimeIndex", "RegularTimeIndex"]
