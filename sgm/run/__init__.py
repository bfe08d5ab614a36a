"""The roof: one stage of one block of cells.

A stage reads a spec (what the config says of its cells, with addresses of what to
build), calls the mathematics, and writes cell files. `python -m sgm.run` is the command
that the workflow's rules call; each rule's shell line can be run by hand.
"""
