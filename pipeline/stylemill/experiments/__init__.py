"""Decides which of two styles is better: design of the comparison, votes, statistics."""
