"""Where data comes from: one file a data set."""
