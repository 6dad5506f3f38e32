"""A live page of running and finished runs, served by a process of its own: it reads their
journals, takes no lock and moves no voltage.
"""
