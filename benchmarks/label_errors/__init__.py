"""How many broken labels are found among the pictures that a model was trained on."""
