"""Bytes, however they are stored: counted, checked, retried and bounded."""
