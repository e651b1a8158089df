"""What changes underneath, not through the mount: of a whole filesystem, else by directory."""
