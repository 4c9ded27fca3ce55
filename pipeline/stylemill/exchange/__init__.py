"""Import of style models from other implementations, and export to their formats."""
