"""The training flow: one style per run, resumable with bit-identical results."""
