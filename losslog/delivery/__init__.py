"""From the journal to the plugins, near and far."""
