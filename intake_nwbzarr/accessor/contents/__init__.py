"""What a Dataset shows, read off its attributes: objects, columns, times."""
