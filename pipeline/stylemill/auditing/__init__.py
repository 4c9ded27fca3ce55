"""Verifies, repairs and cleans up committed runs."""
