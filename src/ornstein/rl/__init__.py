"""Values, targets, weights and averages of reinforcement learning."""
