"""What the libraries of Hugging Face are given: a data collator and a tokenizer."""
