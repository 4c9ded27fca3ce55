"""Inputs of the demo: a style image drawn by code, and a small library of real photographs."""
