"""Snapshots: the metadata of sessions, and what else opening reads, in one small file."""
