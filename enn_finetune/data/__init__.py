"""Tasks, tables, tokens, and the oracle that counts labels: numpy only at import."""
