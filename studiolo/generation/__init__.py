"""Generation: the base as a pipeline, LoRA mixes on it, and the engine that makes portraits."""

import os

# transformers tells on every import that torchvision is missing, which we never install.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
