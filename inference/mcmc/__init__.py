"""Markov chains: running them, their kernels, annealing between densities, latent sites as one vector."""
