"""The report of a result folder: one page that works offline, and the same as Markdown."""

from harness.analysis.report.render import render_report
from harness.analysis.report.terminal import format_summary

__all__ = ["format_summary", "render_report"]
