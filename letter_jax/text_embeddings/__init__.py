"""Text embeddings of items: TF-IDF with a truncated SVD, or a language model whose rows are cached.

Modules are imported where they are used: scikit-learn and PyTorch take seconds to import.
"""
