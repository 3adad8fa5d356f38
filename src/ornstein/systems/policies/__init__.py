"""Systems that act: diffusion over actions, and the learners that they are compared with."""
