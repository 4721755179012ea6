"""The report of a result folder: one page that works offline, and the same as Markdown."""

from harness.analysis.report.render import format_summary, render_report

__all__ = ["format_summary", "render_report"]
