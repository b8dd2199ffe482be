"""The vocabulary of the API: one file per family with its requests, replies and operations."""
