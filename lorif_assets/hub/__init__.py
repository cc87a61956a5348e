"""Repositories of the Hugging Face hub: their names, which commit a name stands for, and their files in its cache."""
