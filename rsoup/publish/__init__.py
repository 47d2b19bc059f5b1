"""Publishing on the Hub: one reviewable commit, a true card, nothing private."""
