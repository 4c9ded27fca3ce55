"""Bytes of any image to pixels and back, with what must survive."""
