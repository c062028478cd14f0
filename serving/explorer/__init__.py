"""The transformer: from a user id to a slate."""
