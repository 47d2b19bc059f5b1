"""What was measured: points and their values with standard errors, read strictly from any table."""
