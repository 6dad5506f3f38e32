"""The board protocol from the board's side."""
