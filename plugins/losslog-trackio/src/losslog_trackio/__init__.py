"""Trackio for losslog: every series of a run in a local dashboard. Importing this imports no trackio."""

from losslog_trackio.plugin import TrackioPlugin

__all__ = ["TrackioPlugin"]
