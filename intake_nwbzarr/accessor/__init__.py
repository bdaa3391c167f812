"""`ds.nwb`: what a session's Dataset can do beside holding values. Importing this registers it."""

from intake_nwbzarr.accessor.core import NWBAccessor
from intake_nwbzarr.accessor.of_arrays import NWBArrayAccessor
from intake_nwbzarr.accessor.way_back import Origin

__all__ = ["NWBAccessor", "NWBArrayAccessor", "Origin"]
