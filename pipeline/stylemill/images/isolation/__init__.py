"""Decoding in a child process, so that a crash or a hang costs one image and no worker."""
