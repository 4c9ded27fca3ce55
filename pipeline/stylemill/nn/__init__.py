"""Networks, losses and fast forward passes. Needs only torch and numpy."""
