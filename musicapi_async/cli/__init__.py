"""The `musicapi` command: click and rich, the extra `[cli]`."""
