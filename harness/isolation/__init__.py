"""What the walls of each platform are made of, asked from inside, and whether they hold."""
