"""Every group and array of an NWB Zarr file, in one canonical form whatever release wrote it."""
