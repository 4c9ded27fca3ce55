"""The network on a CPU: weights folded and packed once, strips of rows through every layer, fixed orders of sums."""
