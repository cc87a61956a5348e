"""Ways to score every training example for every query, LoRIF among them, under one roof: same inputs, same table."""
