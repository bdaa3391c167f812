"""Map neurodata objects of each NWB type to xarray variables, dimensions and labels."""
