"""Albums: what a photo is, where it comes from, how it is decoded and cut, whose it is, and whether it is used."""
