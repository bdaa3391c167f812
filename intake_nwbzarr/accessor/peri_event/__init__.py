"""`ds.nwb.align`: series and spike counts around events."""
