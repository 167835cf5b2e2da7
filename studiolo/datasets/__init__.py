"""FGID-style datasets: faces with a mask, a box and a caption for each region (ConsistentID, section 3.4)."""
