"""HDF5 files, read without the HDF5 library: parts of the file, objects, groups, and where chunks are."""
