"""What a change costs: rebuilding a container image by layers, and a virtual machine's disk."""
