"""The graph of a model's sites: read off, laid out, drawn."""
