"""Decoding in a child process, so that a crash, a hang or a memory bomb inside an image library costs one image."""
