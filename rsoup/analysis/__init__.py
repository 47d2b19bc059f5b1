"""What measured points say: the front, its measures and the paper's hypotheses, from a table to one document."""
