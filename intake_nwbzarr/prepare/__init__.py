"""Preparing files for those who will stream them."""
