"""The chunk cache: copies of what was read, on disk, bounded, and whose they are."""
