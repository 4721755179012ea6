"""A static site over many runs: index, reports, comparisons and history; needs no server."""

from harness.analysis.site.publish import Published, publish_site

__all__ = ["Published", "publish_site"]
