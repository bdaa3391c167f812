"""Conversion of sessions, Zarr or HDF5, to consolidated, sharded Zarr 3 in the form of hdmf-zarr 0.14."""
