"""The contract with the running kernel: the device, mounting, dialects and negotiation."""
