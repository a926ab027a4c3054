"""From a channel's lease to its end: attempts, retries, replies, dead letters."""
