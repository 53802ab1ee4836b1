"""cifarnet: train, measure and see image classifiers with margin losses. Importing it does not import torch."""

__version__ = "0.1.0"
