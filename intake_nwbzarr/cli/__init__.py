"""The command line interface, `nwbzarr`."""
