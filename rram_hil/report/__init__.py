"""Pages and pictures of any run: what a report shows, and how it is drawn into one file."""
