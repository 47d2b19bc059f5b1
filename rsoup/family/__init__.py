"""How far checkpoints moved, and whether they are one family: the one pass that measures, and the verdict."""
