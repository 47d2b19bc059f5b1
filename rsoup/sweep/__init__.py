"""A sweep: many λ, their soups, their rewards, the front."""
