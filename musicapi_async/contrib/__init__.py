"""Bridges to other libraries. Each module imports its library only when it is imported itself."""

__all__: list[str] = []
