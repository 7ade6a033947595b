"""Models: Mamba writes texture tokens, the VQ-VAE turns them into samples, a classifier judges; weights, decoding, training."""
