"""What people read: the page, the live screen, the trace; and how they stop what they look at."""
