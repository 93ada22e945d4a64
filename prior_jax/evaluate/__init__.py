"""Zero-shot classification, retrieval and their metrics."""
