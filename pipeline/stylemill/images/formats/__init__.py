"""File formats: what a file is by its bytes, and what Pillow alone cannot read or write."""
