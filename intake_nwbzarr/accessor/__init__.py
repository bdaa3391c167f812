"""`ds.nwb`: what a session's Dataset can do beside holding values. Importing this registers it."""

from intake_nwbzarr.accessor.accessor import NWBAccessor, NWBArrayAccessor
from intake_nwbzarr.accessor.sessions import Origin

__all__ = ["NWBAccessor", "NWBArrayAccessor", "Origin"]
