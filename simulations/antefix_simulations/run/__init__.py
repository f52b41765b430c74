"""A simulated run: rounds of a shared prefix, private prefixes on top, and what each is worth to whom."""
