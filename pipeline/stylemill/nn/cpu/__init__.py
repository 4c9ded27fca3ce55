"""The forward pass on a CPU: packed weights, strips of rows through every layer, sums in a fixed order."""
