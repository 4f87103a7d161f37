"""Files and arrays to pixels, pixels to network input."""
