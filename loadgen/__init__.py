"""Streams of values for running services, and what came of them. Speaks HTTP only."""
