"""Pure rules of the wire: no I/O and no clock."""
