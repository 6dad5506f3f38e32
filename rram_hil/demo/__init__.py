"""The demonstration: the main job end to end, without hardware."""
