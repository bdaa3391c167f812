"""Ragged columns: a row's values, and contiguous ones for files."""
