"""Zarr 2, as hdmf-zarr up to 0.13 wrote it, translated to the one form of a hierarchy."""
