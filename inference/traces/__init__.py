"""What Pyro's traces tell about a model or a guide: sites, parameters, draws, initial values."""
