"""Files of texts turned into vectors, and search among them."""
