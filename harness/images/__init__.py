"""Images: built, packed, imported and found; and the kernel that guests run."""
