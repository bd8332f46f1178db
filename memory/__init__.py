"""What is remembered: candidates in SQLite, two verbs."""
