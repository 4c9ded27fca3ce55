"""Manifests of bulk runs: schema, plan shards, pending rows, parts, commit and reading."""
