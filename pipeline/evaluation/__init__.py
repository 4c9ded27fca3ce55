"""How good a style is, and which of two is better: measurements, votes, and the statistics that decide."""
