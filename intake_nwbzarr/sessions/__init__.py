"""Many sessions: tables of what they contain, made by scanning, searched, and processed on a cluster."""
