"""The training flow: one style per run, resumable to the bit."""
