"""A user's own model: a function in a Python file, its data by argument name, and the row that it gets."""
