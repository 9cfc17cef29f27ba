"""Training, evaluation and the demo."""
