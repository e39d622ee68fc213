"""What goes wrong in the world, tried out: odd input, damaged files, processes that die."""
