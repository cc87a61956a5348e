"""Do scores predict retraining? Methods, retraining, figures and the tuning of recipes."""
