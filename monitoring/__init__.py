"""What was shown, what came of it, whether novelty drifts, and what to do about it."""
