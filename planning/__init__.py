"""What a run would be, told before it begins."""
