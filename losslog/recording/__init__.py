"""From the queue to the journal, on the drain thread."""
