"""Thin: the code is in antefix_server and antefix_client."""
