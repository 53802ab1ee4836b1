"""1:N identification, open set: templates, search and rates, on plain arrays."""
