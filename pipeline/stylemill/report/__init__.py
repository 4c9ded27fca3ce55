"""Pages about runs: one self-contained HTML file each, readable without a network."""
