"""The arms of studies, one file each: an entry point of the group `rram_hil.arms` names it."""
