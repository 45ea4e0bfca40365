"""Checkpoints, pretrained encoders, and the network that flags and files ask for."""
