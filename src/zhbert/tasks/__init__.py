"""Tasks: a card says what the data is and how it is scored; a kind says how it is learnt."""
