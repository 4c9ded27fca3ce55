"""Scheduled retraining that ships only what is better."""
