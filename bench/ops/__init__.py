"""Single ops on the CPU."""
