"""Networks, losses and their arithmetic. Depends on torch alone."""
