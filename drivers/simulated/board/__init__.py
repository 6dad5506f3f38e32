"""The far side of docs/board-protocol.md: its codec, its links, and what goes wrong on them."""
