"""Training and measuring: one call that trains, its loop, its step, and the loop over batches that everything else uses."""
