"""What a running study shows: its progress (pure), a page of it, and those who feed it: events or files."""
