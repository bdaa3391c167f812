"""Copies of stored objects: in memory, on disk, in a snapshot, or of a whole session."""
