"""The same run through Flower: `flwr run .`, its simulation engine and Ray beneath."""
