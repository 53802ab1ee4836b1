"""A trained model as one file for other programs, and the check that the file computes what the model does."""
