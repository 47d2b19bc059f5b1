"""What torch.save and its users write: pickles read as data, zip archives, distributed checkpoints, policies."""
