"""What each model accepts and costs: the table of models.yaml and its rules."""
