"""From names and options to a fit and its output: what the command line does, without its words."""
