"""Many run files: what is in them, found quickly, with tags and notes given afterwards."""
