"""Where a session is: its URL or path, its options, and as whom it is read."""
