"""Bytes to and from instruments: links, dialogs, recordings, the clock of a simulated bench."""
