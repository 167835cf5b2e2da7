"""What is in a photo: one file a capability, each a small protocol with an `Embedded...` backend.

Coordinates are pixels of the picture handed in, x right, y down. "Left" and "right" of a person are the person's own,
"left" and "right" of the picture the viewer's; names and docstrings say which.
"""
