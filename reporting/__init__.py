"""What a run tells people: metrics files, the progress line, the report, traces."""
