"""Moves: an image and its application travel to another host over a shaped link, and start there.

Everything is real: a registry, an HTTP server, their own logs, and a link whose bytes are counted.
"""
