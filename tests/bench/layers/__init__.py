"""What tests/bench/overlay.py is made of: overlays, what is done in them, and the verdicts."""
