"""Path patterns, matched one name at a time."""
