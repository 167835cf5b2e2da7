"""Model cards and the files they name: `cards` says what a model is, `fetch` has its verified files."""
