"""What bypasses: the YAML that users write, and what it means."""
