"""Quicker ways to run one density: graphs, compiled steps, JAX. Private; see README.md."""
