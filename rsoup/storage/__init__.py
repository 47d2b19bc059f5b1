"""Where checkpoints come from and where soups go: one Source protocol, one Sink protocol."""
