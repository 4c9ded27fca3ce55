"""Decoding and encoding: the bytes of any image file to 8-bit sRGB pixels and back, with alpha and metadata."""
