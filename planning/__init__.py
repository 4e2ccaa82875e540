"""What a run will take, told before its hardware is there: bytes, operations, exchanges, time.

`chips.py` is the one table of published constants, `topology.py` reads --topology, `torus.py` says
which links a mesh axis has. `analytic/` needs no compiler: its terms are in `memory.py`,
`work.py` and `exchanges.py`, each a named line with its formula. `whole_run.py` is the run from its
first step to its last.
"""
