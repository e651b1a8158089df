"""What can be done with an upper layer that is not mounted: check it, list, apply or pack it."""
