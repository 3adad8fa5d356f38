"""The activations of the networks, whose one home is `ornstein.activation` because critics in `rl` share them."""

from ornstein.activation import Mish, activation, mish

__all__ = ["Mish", "activation", "mish"]
