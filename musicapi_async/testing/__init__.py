"""For tests of code that uses this package: a pytest plugin, and an event loop on which waiting is instant."""
