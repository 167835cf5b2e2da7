"""Where outputs live: files and objects, completion records, experiment tracking."""
