"""For tests of code that uses this package: a pytest plugin, and a loop on which waiting is instant."""

__all__: list[str] = []
