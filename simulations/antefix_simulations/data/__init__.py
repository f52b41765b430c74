"""Texts of many users, on disk: where they come from, how they are split, and what became of them."""
