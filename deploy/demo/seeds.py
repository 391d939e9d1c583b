"""Which seeds are for what. No two ranges share one, so that nothing is examined by what it was taught."""

CARD = range(500_000)
"""The model card, tests, and whoever draws scenes to try a model."""
EXAMS = range(500_000, 999_700)
"""During training."""
ADAPTER = range(999_700, 1_000_000)
LESSONS = range(1_000_000, 10_000_000)
TOKENIZER = range(10_000_000, 11_000_000)
