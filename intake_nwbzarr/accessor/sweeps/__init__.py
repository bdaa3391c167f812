"""`ds.nwb.sweeps`: patch-clamp recordings by sweep."""
