"""Which of two styles is better: the design of a comparison, votes, and the statistics that decide."""
