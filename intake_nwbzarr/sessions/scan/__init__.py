"""Scan sessions, or dandisets, into tables."""
