"""Systems that imagine: diffusion over transitions."""
