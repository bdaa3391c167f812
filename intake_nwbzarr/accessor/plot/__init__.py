"""`ds.nwb.plot`: first looks."""
