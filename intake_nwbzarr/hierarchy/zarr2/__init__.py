"""Zarr 2 files, which hdmf-zarr wrote up to 0.13, translated to the Zarr 3 form of hdmf-zarr 0.14."""
