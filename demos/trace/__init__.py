"""Many devices and one cluster, replayed event by event on fitted profiles."""
