"""What makes receivers fast in bulk operations."""
