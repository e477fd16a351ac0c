"""Rectified-flow transformers, from one config to a scaling law with intervals that hold."""

__version__ = "0.1.0"
