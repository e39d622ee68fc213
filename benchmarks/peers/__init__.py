"""The same models written by hand for the peers; tests hold their log densities against ours."""
