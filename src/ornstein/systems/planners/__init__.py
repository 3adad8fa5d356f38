"""Systems that plan: diffusion over trajectories."""
