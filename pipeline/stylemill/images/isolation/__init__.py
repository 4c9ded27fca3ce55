"""Decoding in a child process, so that a crash, a hang or a lack of memory in an image library fails one image only."""
