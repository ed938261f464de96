"""What both services wait with: settings, logs, bodies, errors, a server. It decides nothing.

The one room of `shared` that knows of sockets and clocks. Nothing else in `shared` imports it.
"""
