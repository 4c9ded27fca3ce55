"""Manifests: schema, plan, pending rows, commit, reading."""
