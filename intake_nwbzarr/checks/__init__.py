"""What is found out about a session: `check` for streaming, `verify` against pynwb, `session_info`."""
