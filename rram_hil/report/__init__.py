"""Pages and pictures of any run."""
