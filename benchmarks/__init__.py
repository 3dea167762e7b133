"""Scripts that measure retrieval precision and speed, with their result tables; not installed."""
