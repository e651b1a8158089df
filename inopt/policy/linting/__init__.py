"""Whether a policy is enforceable, and what was meant."""
