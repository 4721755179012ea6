"""Figures of the harness itself: `python -m benches` prints them, asv keeps their history."""
