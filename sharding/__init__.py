"""Logical axes -> mesh axes -> devices. The only room that knows the mesh."""
