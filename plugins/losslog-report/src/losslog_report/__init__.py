"""A run as a page that is simply there, and as a chart in the notebook that trains it."""

from losslog_report.notebook import NotebookPlugin
from losslog_report.plugin import ReportPlugin

__all__ = ["NotebookPlugin", "ReportPlugin"]
