"""Checks of a session: `verify` compares pynwb's values with xarray's, `chunks` counts what is stored."""
