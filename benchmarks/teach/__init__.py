"""How well cars are taught that the model was never trained on."""
