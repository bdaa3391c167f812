"""Many sessions: tables of what they contain, made by scanning, searched, and worked through on a cluster."""
