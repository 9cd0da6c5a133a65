"""The perturbation audit: how small and natural a change, made in a diffusion latent, fools a classifier?"""
