"""What people read at the command line."""
