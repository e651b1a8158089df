"""Several directory trees seen as one, the topmost writable, in the kernel's overlayfs format."""
