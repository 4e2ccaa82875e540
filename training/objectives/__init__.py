"""What a step minimises: one idea a file, and the table of them in objective.py."""
