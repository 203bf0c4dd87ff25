"""Files to documents, documents to shards, shards to masked batches."""
