"""From YAML to a policy file: every value with its place, every mistake named."""
