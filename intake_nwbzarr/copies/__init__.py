"""Copies of sessions that users make: snapshots of what opening reads, and whole downloads."""
