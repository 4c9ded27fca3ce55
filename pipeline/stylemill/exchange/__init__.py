"""Style models from other implementations, and style models for them."""
