"""Measurements of how good a style is, and direct optimisation to compare with."""
