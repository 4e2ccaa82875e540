"""One file a run: get_config() returns a ConfigDict; its docstring has the command to run it."""
