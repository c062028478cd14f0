"""The collector: CloudEvents in, durable before they are acknowledged, and each counted once."""
