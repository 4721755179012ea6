"""What the cache has in stock: everything that can be made again, who uses it, what may go."""
