"""Runs a verb as a job on a Ray cluster: what is sent, job ids, the cluster's answers, estimates of time and cost."""
