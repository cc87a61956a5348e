"""What a recipe comes to on one model: layers, widths, ranks, and the memory that they take."""
