"""What Pyro's traces say of a model or a guide: its sites, parameters, draws, starting values."""
