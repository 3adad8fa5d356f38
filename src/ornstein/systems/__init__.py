"""Published systems, one file each, grouped by the role that diffusion plays in them."""
