"""The encoder, its weights, and the heads on top."""
