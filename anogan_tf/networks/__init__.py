"""What training and search share: the networks, their losses, the latent space."""
