"""Image files: decoding, listing, a cache of decoded ones, reading as they are needed."""
