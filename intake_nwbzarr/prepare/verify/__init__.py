"""Verifying: everything that pynwb reads from a file, compared with what xarray shows of it."""

from intake_nwbzarr.prepare.verify.findings import Difference, Equal, Unshown, Verification
from intake_nwbzarr.prepare.verify.session import compare, verify

__all__ = ["Difference", "Equal", "Unshown", "Verification", "compare", "verify"]
