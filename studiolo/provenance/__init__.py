"""Where a picture comes from: the C2PA manifests that delivered pictures carry, made, read, and told from others'."""
