"""The tree underneath: safe steps below one root, and the one-to-one table of its inodes."""
