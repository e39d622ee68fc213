"""Optimisers of ELBOs and of densities: gradient steps, quasi-Newton steps, losses, minibatches, curvature."""
