"""The bulk flow: plan, read, stylize, write, commit."""
