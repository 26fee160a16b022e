"""Fine-tune BERT with fewer labels: an epinet decides which examples to buy."""
