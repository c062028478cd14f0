"""The predictor: from a history and clusters to items."""
