"""The mathematics: tensors and arrays in, tensors and arrays out."""
