"""A verb as a job on a Ray cluster: what is sent, to whom, and what came of it."""
