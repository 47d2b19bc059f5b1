"""Proof: whether a soup is what its manifest and its recipe say, and how two checkpoints differ."""
