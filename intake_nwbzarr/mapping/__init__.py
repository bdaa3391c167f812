"""Neurodata objects as xarray: what each NWB type becomes."""
