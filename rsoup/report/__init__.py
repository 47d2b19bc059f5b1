"""What is written about a soup for people: its model card."""
