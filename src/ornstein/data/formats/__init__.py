"""One reader and one writer per file format; what they read is always `Episodes`."""
