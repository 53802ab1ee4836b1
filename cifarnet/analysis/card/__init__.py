"""The card of a model: what it is, what it was trained on, how good it is and where that ends, in the Hugging Face format."""
