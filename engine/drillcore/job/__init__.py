"""What a job says: its fields, its file, its schema."""
