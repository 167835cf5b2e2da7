"""Identities: the references, captions and trigger of one person, and where the learned LoRA is kept."""
