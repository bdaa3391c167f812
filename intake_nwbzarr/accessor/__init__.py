"""`ds.nwb`: what a session's Dataset can do beside holding values. Importing this registers it."""

from intake_nwbzarr.accessor.core import NWBAccessor, RegisteringText

__all__ = ["NWBAccessor", "RegisteringText"]
