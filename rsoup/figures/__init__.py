"""Figures for papers and terminals: SVG without a dependency, PNG through resvg, one file per kind of figure."""
