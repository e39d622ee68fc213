"""What a report shows of one model: ``sections(comparison, x, columns)`` in a file named as the model."""
