"""Verifying: everything that pynwb reads from a file, compared with what xarray shows of it."""

from tests.check.old_verify.findings import Difference, Equal, Unshown, Verification
from tests.check.old_verify.session import compare, verify

__all__ = ["Difference", "Equal", "Unshown", "Verification", "compare", "verify"]
