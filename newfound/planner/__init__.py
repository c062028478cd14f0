"""The language policy: prompt, fine-tuning, exact constrained decoding, engines elsewhere, alignment."""
