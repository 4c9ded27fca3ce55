"""Scheduled retraining: a new version of a style is promoted only if it is better."""
