"""The latent search: no detector, no pixels."""
