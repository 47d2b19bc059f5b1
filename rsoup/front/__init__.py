"""The front of what was measured: which points nothing beats, how much they cover, which λ to measure next."""
