"""Sessions as catalog entries, for Intake 1 (`source`) and Intake 2 (`reader`)."""
