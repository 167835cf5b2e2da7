"""Generation: the base as a pipeline, LoRA mixes on it, and the engine that makes portraits."""
