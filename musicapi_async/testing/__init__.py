"""Fixtures and time for the tests of programs that use musicapi_async."""
