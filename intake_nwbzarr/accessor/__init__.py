"""`ds.nwb`: operations for neurophysiology on a session's Dataset. Importing this registers it."""

from intake_nwbzarr.accessor.accessor import NWBAccessor, NWBArrayAccessor
from intake_nwbzarr.accessor.sessions import Origin

__all__ = ["NWBAccessor", "NWBArrayAccessor", "Origin"]
