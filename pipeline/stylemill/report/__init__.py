"""Report pages: one self-contained HTML file per run, readable without a network."""
