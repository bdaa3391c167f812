"""Tables as pandas DataFrames."""
