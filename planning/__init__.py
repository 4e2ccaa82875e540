"""What a run will need and how fast it should be, before its hardware is there."""
