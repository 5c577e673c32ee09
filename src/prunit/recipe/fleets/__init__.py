"""One build for several devices: what each may cost, and the fewest variants that serve all of them.

- goals.py: what a list of devices asks for (no torch)
- cover.py: the fewest candidates that serve everybody
- planning.py: a plan for each device, and which of them serve whom
- building.py: the same as a step of a build
"""
