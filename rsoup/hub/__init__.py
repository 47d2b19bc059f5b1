"""Checkpoints on the Hub: addresses, one commit, its files in the shared cache or read by ranges."""
