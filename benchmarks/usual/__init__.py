"""The references: published systems restated the way their repositories write them, in our own words.

They share nothing with Ornstein but torch, so they are also a second implementation for the tests.
"""
