"""Read from a trained model: features, embeddings, complexity, statistics, figures and the report."""
