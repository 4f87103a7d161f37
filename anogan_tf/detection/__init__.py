"""How anomalous an image is, and where."""
