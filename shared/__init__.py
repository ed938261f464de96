"""Everything that decides, and nothing that waits: no I/O, no clock, no asyncio, no randomness."""
