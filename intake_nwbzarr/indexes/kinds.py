"""Kinds of one class: names for its constructors, by which `isinstance` tells its instances apart."""

from __future__ import annotations

from intake_nwbzarr.indexes.lazy import LazyTimeIndex
from intake_nwbzarr.indexes.regular_timestamps import RegularTimestamps


class TimeIndexKind(type):
    """The type of `RegularTimeIndex` and `IrregularTimeIndex`, of which every instance is a `LazyTimeIndex`.

    xarray puts indexes into groups by their exact class and aligns within groups only (`MatchingIndexKey` in
    ``xarray.structure.alignment``, 2026.9), so that instances of two classes could not be aligned.
    """

    regular: bool

    def __call__(cls, *arguments: object, **keywords: object) -> LazyTimeIndex:
        """Make a `LazyTimeIndex`."""
        return LazyTimeIndex(*arguments, **keywords)  # type: ignore[arg-type]

    def __instancecheck__(cls, instance: object) -> bool:
        """Whether an index is of this kind: whether it has a rate."""
        return isinstance(instance, LazyTimeIndex) and cls.regular == isinstance(
            instance.view.timestamps, RegularTimestamps
        )
