"""Gradient steps, L-BFGS, losses, minibatches, and the curvature at a mode."""
