"""Figures of one kind of model."""
