"""Estimates of a step from the config and published rates alone: no compiler is asked."""
