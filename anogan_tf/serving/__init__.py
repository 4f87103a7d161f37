"""A detector as a SavedModel."""
