"""What a person looks at, made from tables."""
