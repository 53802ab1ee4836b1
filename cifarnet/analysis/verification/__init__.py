"""1:1 verification: rates at every threshold, operating points, and their intervals, of anyone's embeddings or scores.

Terms of ISO/IEC 19795-1. A pair of images is genuine (one identity) or an impostor (two); it has a score, and is accepted where
the score is at least the threshold τ. FMR(τ): accepted impostor pairs among all impostor pairs ("FAR"); FNMR(τ): rejected
genuine pairs among all genuine pairs; TAR = 1 - FNMR.
"""
