"""What is measured: functions that prepare, and give a function of which each call is timed.

Each takes the URL of a session and its storage options. What it returns from a timed call is either facts
about the result, by which alternatives are checked to have read the same, or a function that finds them.
"""
