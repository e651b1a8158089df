"""Who serves what, by which rule, and why not the kernel."""
