"""Everything that touches the network: sessions, attempts, pacing and downloads."""
