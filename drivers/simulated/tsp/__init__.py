"""TSP as instruments run it: a Lua machine, buffers, triggers, source-meters, switches."""
