"""`ds.nwb.plot`: quick-look plots."""
