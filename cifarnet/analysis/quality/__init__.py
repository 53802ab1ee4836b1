"""Quality: what an image's norm, cosine or entropy says of how well it is recognised; see docs/quality.md.

`error_versus_discard`, `discard_curve`, `quality_scores` and `correlations` work on anyone's arrays.
"""
