"""musicapi_async."""
