"""File formats: recognition by content, the Pillow plugins in use, and what Pillow alone cannot read or write."""
