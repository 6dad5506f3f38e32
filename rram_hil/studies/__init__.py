"""Studies: chips x arms x devices on simulated benches, side by side and to be gone on with after
any end: `rram-hil study`.
"""
