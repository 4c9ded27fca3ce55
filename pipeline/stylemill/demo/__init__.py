"""The demo's own ingredients: a painting drawn by code and a small library of real photographs."""
