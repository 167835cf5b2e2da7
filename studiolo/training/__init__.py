"""Training: the embedded base, and a face-LoRA for each identity."""
