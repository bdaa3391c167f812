"""Intake catalog entries for sessions: Intake 1 (`source`) and Intake 2 (`reader`)."""
