"""Alerts and ends of runs, sent to a person. Importing this imports no apprise."""

from losslog_notify.plugin import NotifyPlugin

__all__ = ["NotifyPlugin"]
