"""What tier inode is worth, on the lab kernel that has it."""
