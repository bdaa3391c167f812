"""The tables of sessions and objects: their schema and files, and what they may name."""
