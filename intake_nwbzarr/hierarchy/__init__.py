"""The groups and arrays of an NWB Zarr file, in one form for files of all releases."""
