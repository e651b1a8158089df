"""What does not bypass: the daemon's own answers, and users' handlers."""
