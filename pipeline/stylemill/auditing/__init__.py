"""Verify, repair and clean up committed runs."""
