"""Where a store lies: a folder or a bucket, and its lock."""
