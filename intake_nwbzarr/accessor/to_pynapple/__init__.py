"""`ds.nwb.to_pynapple`: series, units and intervals as pynapple's objects."""
