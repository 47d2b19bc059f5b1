"""Which λ to ship: for a linear preference, from comparisons, or for any utility of the rewards."""
