"""Read, list and write stored objects: with checks, bounds, retries and request counts."""
