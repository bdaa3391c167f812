"""Spikes of units: trains and counts."""
