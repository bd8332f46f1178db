"""What people read: the page, the live screen, the trace."""
