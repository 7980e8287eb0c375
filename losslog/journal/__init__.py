"""The run folder on disk: records, the journal's file, cursors, folders, locks."""
