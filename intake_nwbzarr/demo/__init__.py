"""`nwbzarr demo`: the main job from end to end, on this machine, without the internet."""
