"""Pages that show sessions to people: one HTML file each, with pictures from bounded reads."""
