"""What opening and reading cost, beside every alternative, on data laid out as real assets are."""
