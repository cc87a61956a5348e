"""What any row is made of: its values, its id, and why it cannot be used."""
