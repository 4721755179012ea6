"""Figures of the harness itself: `python -m benches` prints them, asv keeps their history."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""This checkout, in which its modules are started: the working folder is asv's, or the user's."""
