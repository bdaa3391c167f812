"""`nwbzarr demo`: an end-to-end demonstration on this machine, without internet access."""
