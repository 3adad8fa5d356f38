"""Networks F(x_t, t, cond); they know nothing of noise or rewards."""
