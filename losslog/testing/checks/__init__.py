"""The checks of `losslog.testing.PluginConformance`, by what they look at."""
