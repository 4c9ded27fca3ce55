"""How good a style is: measurements of painted pictures, and direct optimisation to compare with."""
