"""Sessions between two times, and series on another's time."""
